//! The name of a deployment, as a request gives it.

use common::ids::OfferHash;

/// Hex digits of the hash that make a host label.
pub const LABEL_DIGITS: usize = 40;
/// Fewest hex digits that name a deployment in a path.
pub const MIN_DIGITS: usize = 8;
/// Hex digits of a whole hash.
pub const HASH_DIGITS: usize = 64;

/// The first hex digits of a developer offer's hash, or all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    digits: String,
}

/// Where a request wants to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A deployment, with the path and query that the worker shall see.
    Deployment {
        /// Which one.
        name: Name,
        /// Begins with a slash.
        path_and_query: String,
    },
    /// The gateway's own endpoints.
    Operator,
    /// Something that looks like a deployment's name and is none; the text says what is wrong.
    Malformed(String),
}

impl Name {
    /// Reads at least 8 hex digits, with or without `0x`, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let fits = (MIN_DIGITS..=HASH_DIGITS).contains(&digits.len());
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        (fits && is_hex).then(|| Self { digits: digits.to_ascii_lowercase() })
    }

    /// The whole hash, where all of it is given.
    pub fn whole(&self) -> Option<OfferHash> {
        format!("0x{}", self.digits).parse().ok()
    }

    /// Smallest and largest hash that begin like this.
    pub fn range(&self) -> Option<(OfferHash, OfferHash)> {
        let filled = |digit: &str| {
            let missing = HASH_DIGITS.saturating_sub(self.digits.len());
            format!("0x{}{}", self.digits, digit.repeat(missing)).parse().ok()
        };
        Some((filled("0")?, filled("f")?))
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0x{}", self.digits)
    }
}

/// The host label of a deployment.
pub fn label(hash: OfferHash) -> String {
    hash.to_string().chars().skip(2).take(LABEL_DIGITS).collect()
}

/// Reads where a request wants to go. `host` is the Host header, `path_and_query` the request's target, `domain` the
/// suffix that deployments' hosts have.
pub fn target(host: Option<&str>, path_and_query: &str, domain: Option<&str>) -> Target {
    if let Some(label) = domain.and_then(|domain| host_label(host?, domain)) {
        let name = Name::parse(label).filter(|name| name.digits.len() == LABEL_DIGITS);
        return match name {
            Some(name) => Target::Deployment { name, path_and_query: rooted(path_and_query) },
            None => Target::Malformed(format!(
                "host label {:?} must be the first {LABEL_DIGITS} hex digits of a deployment's offer hash",
                cut(label)
            )),
        };
    }
    let Some(rest) = path_and_query.strip_prefix("/d/") else { return Target::Operator };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (text, rest) = rest.split_at(end);
    match Name::parse(text) {
        Some(name) => Target::Deployment { name, path_and_query: rooted(rest) },
        None => Target::Malformed(format!(
            "deployment {:?} must be the offer hash, or at least {MIN_DIGITS} of its first hex digits",
            cut(text)
        )),
    }
}

/// What stands before `.{domain}` in a Host header; `None` for other hosts and the bare domain.
fn host_label<'h>(host: &'h str, domain: &str) -> Option<&'h str> {
    let name = host
        .rsplit_once(':')
        .map_or(host, |(name, port)| if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host });
    let name = name.strip_suffix('.').unwrap_or(name);
    let at = name.len().checked_sub(domain.len())?;
    let (label, suffix) = name.split_at_checked(at)?;
    if !suffix.eq_ignore_ascii_case(domain) {
        return None;
    }
    label.strip_suffix('.').filter(|label| !label.is_empty())
}

fn rooted(path_and_query: &str) -> String {
    if path_and_query.starts_with('/') { path_and_query.to_owned() } else { format!("/{path_and_query}") }
}

/// A stranger's text, cut to a readable length.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0xABcd567890123456789012345678901234567890123456789012345678901234";

    fn deployment(name: &str, path: &str) -> Target {
        Target::Deployment { name: Name::parse(name).unwrap(), path_and_query: path.to_owned() }
    }

    #[test]
    fn paths_name_deployments() {
        for (path, wanted) in [
            (format!("/d/{HASH}"), deployment(HASH, "/")),
            (format!("/d/{HASH}/"), deployment(HASH, "/")),
            (format!("/d/{HASH}?a=1"), deployment(HASH, "/?a=1")),
            (format!("/d/{HASH}/a/../b%2f?c=d/e"), deployment(HASH, "/a/../b%2f?c=d/e")),
            ("/d/abcd5678/x".to_owned(), deployment("0xabcd5678", "/x")),
            ("/metrics".to_owned(), Target::Operator),
            ("/d".to_owned(), Target::Operator),
        ] {
            assert_eq!(target(Some("gateway:80"), &path, None), wanted, "{path}");
        }
        for path in ["/d/", "/d/abcd567/x", "/d/hello123/x", &format!("/d/{HASH}0/")] {
            assert!(matches!(target(None, path, None), Target::Malformed(_)), "{path}");
        }
    }

    #[test]
    fn hosts_name_deployments() {
        let label = label(HASH.parse().unwrap());
        assert_eq!(label.len(), LABEL_DIGITS);
        for host in [format!("{label}.run.test"), format!("{label}.RUN.test:8081"), format!("{label}.run.test.")] {
            let wanted = deployment(&label, "/healthz");
            assert_eq!(target(Some(&host), "/healthz", Some("run.test")), wanted, "{host}");
        }
        for host in ["run.test", "run.test:80", "other.test", "evilrun.test", "é.run"] {
            assert_eq!(target(Some(host), "/healthz", Some("run.test")), Target::Operator, "{host}");
        }
        for host in ["www.run.test", "abcd5678.run.test"] {
            assert!(matches!(target(Some(host), "/", Some("run.test")), Target::Malformed(_)), "{host}");
        }
    }

    #[test]
    fn a_prefix_spans_the_hashes_that_begin_with_it() {
        let (low, high) = Name::parse("0xABcd5678").unwrap().range().unwrap();
        let hash: OfferHash = HASH.parse().unwrap();
        assert!(low < hash && hash < high);
        assert_eq!(Name::parse(HASH).unwrap().whole(), Some(hash));
        assert_eq!(Name::parse("abcd5678").unwrap().whole(), None);
    }
}

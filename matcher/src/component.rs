//! What a Wasm file says about itself: whether it is a component, whether it serves HTTP, what it needs of its host.

use common::feature::FeatureSet;
use thiserror::Error;
use wasmparser::{ComponentExternalKind, Parser, Payload, Validator, WasmFeatures};

/// Packages whose imports are no features, since every agent links them.
///
/// `wasi:filesystem` and `wasi:sockets` are features by name, yet stand here: the C library of the toolchains imports
/// them into workers that never open a file or a socket, so that an import says nothing about a need. Agents link them
/// with nothing granted; a worker that truly needs one has the feature named in its offer.
const ALWAYS_LINKED: [&str; 6] =
    ["wasi:cli", "wasi:io", "wasi:clocks", "wasi:random", "wasi:filesystem", "wasi:sockets"];

/// Interfaces of `wasi:http` that carry the requests in: linked always.
const INCOMING_HTTP: [&str; 2] = ["wasi:http/types", "wasi:http/incoming-handler"];

/// Exports that make a component a worker: WASI 0.2, and 0.3.
const HANDLERS: [&str; 2] = ["wasi:http/incoming-handler", "wasi:http/handler"];

/// The one that WASI 0.3 imports for requests out; 0.2 calls it `outgoing-handler`, as the feature does.
const OUTGOING_HTTP_P3: &str = "wasi:http/handler";

/// A file that no agent could host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NotHostable {
    /// A core module.
    #[error(
        "not a component: this is a core module; build for wasm32-wasip2, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    /// Something else altogether.
    #[error("not a component: the file does not begin like WebAssembly; upload the .wasm file itself")]
    NotWasm,
    /// It begins like a component, and then is none.
    #[error("not a valid component: {detail}; it may be truncated, or use proposals beyond WASI 0.2")]
    Invalid {
        /// What and where, in the validator's words.
        detail: String,
    },
    /// It serves no HTTP.
    #[error(
        "the component exports no wasi:http/incoming-handler, so it cannot answer requests: build an HTTP worker, not a command"
    )]
    NoHandler,
    /// It imports what no host has.
    #[error("the component imports {import:?}, which no host of this market has: compose it in, or do without it")]
    UnknownImport {
        /// The import's name, cut to a readable length.
        import: String,
    },
}

impl NotHostable {
    /// Stable code of the problem.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CoreModule | Self::NotWasm | Self::Invalid { .. } => "not_a_component",
            Self::NoHandler => "no_http_handler",
            Self::UnknownImport { .. } => "unknown_import",
        }
    }
}

/// Validates a component and derives from its imports the features that its host must have. CPU-bound, linear in the
/// length of `bytes`.
pub fn required_features(bytes: &[u8]) -> Result<FeatureSet, NotHostable> {
    if Parser::is_core_wasm(bytes) {
        return Err(NotHostable::CoreModule);
    }
    if !Parser::is_component(bytes) {
        return Err(NotHostable::NotWasm);
    }
    let invalid = |error: wasmparser::BinaryReaderError| NotHostable::Invalid { detail: cut(&error.to_string()) };
    Validator::new_with_features(WasmFeatures::default()).validate_all(bytes).map_err(invalid)?;
    let (mut features, mut has_handler) = (FeatureSet::EMPTY, false);
    // Components within the component import from their parent, not from the host.
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { .. } => depth = depth.saturating_add(1),
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    let name = import.map_err(invalid)?.name.name;
                    features = features.union(feature_of(name)?);
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    let export = export.map_err(invalid)?;
                    let is_handler = HANDLERS.contains(&unversioned(export.name.name));
                    has_handler |= is_handler && export.kind == ComponentExternalKind::Instance;
                }
            }
            _ => (),
        }
    }
    if has_handler { Ok(features) } else { Err(NotHostable::NoHandler) }
}

/// The feature that an import stands for.
fn feature_of(import: &str) -> Result<FeatureSet, NotHostable> {
    let interface = unversioned(import);
    let package = interface.split('/').next().unwrap_or(interface);
    if ALWAYS_LINKED.contains(&package) || INCOMING_HTTP.contains(&interface) {
        return Ok(FeatureSet::EMPTY);
    }
    if interface == OUTGOING_HTTP_P3 {
        return FeatureSet::named("wasi:http/outgoing-handler").map_err(|_| unknown(import));
    }
    // `bit:N` is a way to write features, not the name of an import.
    let named = |name: &str| {
        if name.starts_with("bit:") {
            Err(unknown(import))
        } else {
            FeatureSet::named(name).map_err(|_| unknown(import))
        }
    };
    named(interface).or_else(|_| named(package))
}

fn unversioned(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

fn unknown(import: &str) -> NotHostable {
    NotHostable::UnknownImport { import: cut(import) }
}

fn cut(text: &str) -> String {
    text.chars().take(200).collect()
}

/// Hand-made components for tests.
#[cfg(test)]
pub(crate) mod samples {
    fn name(text: &str) -> Vec<u8> {
        [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    fn section(id: u8, body: &[u8]) -> Vec<u8> {
        [&[id, u8::try_from(body.len()).unwrap()], body].concat()
    }

    /// A component that imports empty instances and exports the first of them under another name.
    pub(crate) fn component(imports: &[&str], export: Option<&str>) -> Vec<u8> {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        // One type: an instance of nothing.
        bytes.extend(section(7, &[1, 0x42, 0]));
        for import in imports {
            bytes.extend(section(10, &[vec![1], name(import), vec![5, 0]].concat()));
        }
        if let Some(export) = export {
            bytes.extend(section(11, &[vec![1], name(export), vec![5, 0, 0]].concat()));
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::{samples::component, *};

    const HANDLER: &str = "wasi:http/incoming-handler@0.2.3";

    #[test]
    fn features_follow_from_imports() {
        for (imports, expected) in [
            (&["wasi:io/streams@0.2.0"][..], &[][..]),
            (&["wasi:http/types@0.2.3", "wasi:http/outgoing-handler@0.2.3"], &["wasi:http/outgoing-handler"]),
            (&["wasi:http/handler@0.3.0"], &["wasi:http/outgoing-handler"]),
            (&["wasi:keyvalue/store@0.2.0-draft", "wasi:keyvalue/atomics@0.2.0-draft"], &["wasi:keyvalue"]),
            (
                &["wasi:filesystem/preopens@0.2.0", "wasi:cli/environment@0.2.0", "wasi:logging/logging"],
                &["wasi:logging"],
            ),
        ] {
            let features = required_features(&component(imports, Some(HANDLER))).unwrap();
            assert_eq!(features.names(), expected, "{imports:?}");
        }
    }

    #[test]
    fn what_cannot_be_hosted_is_refused_with_what_to_do() {
        let io = &["wasi:io/streams@0.2.0"][..];
        for (bytes, code, says) in [
            (b"\0asm\x01\0\0\0".to_vec(), "not_a_component", "wasm32-wasip2"),
            (b"#!/bin/sh".to_vec(), "not_a_component", "upload the .wasm file"),
            (Vec::new(), "not_a_component", "upload the .wasm file"),
            (component(io, Some(HANDLER))[..20].to_vec(), "not_a_component", "truncated"),
            (component(io, None), "no_http_handler", "not a command"),
            (component(&["acme:gpu/compute"], Some(HANDLER)), "unknown_import", "acme:gpu/compute"),
        ] {
            let refused = required_features(&bytes).unwrap_err();
            assert_eq!(refused.code(), code, "{refused}");
            assert!(refused.to_string().contains(says), "{refused}");
        }
    }

    #[test]
    fn imports_of_an_inner_component_are_not_the_hosts_concern() {
        let inner = component(&["acme:gpu/compute"], None);
        let mut outer = component(&["wasi:io/streams@0.2.0"], Some(HANDLER));
        outer.extend([4, u8::try_from(inner.len()).unwrap()]);
        outer.extend(inner);
        assert_eq!(required_features(&outer), Ok(FeatureSet::EMPTY));
    }
}

//! How commands answer: JSON or text on standard output, everything else on standard error, one exit code for each
//! kind of failure.

use std::{
    io::{BufRead, IsTerminal, Write},
    process::ExitCode,
};

use chain::ChainError;
use serde_json::{Value, json};

use crate::client::ClientError;

/// Exit codes, beside 0 for success.
const FAILED: u8 = 1;
/// As clap's own.
const USAGE: u8 = 2;
/// An audit's exit code 1 says that there are differences.
const NOT_AUDITED: u8 = 2;
/// The market, its gateway or its contract says no.
const REFUSED: u8 = 3;
/// Nobody answers.
const UNREACHABLE: u8 = 4;

/// A command that was called in a way that cannot work; the text says how it can.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Something that the market would refuse, so that it was not even tried; the text says what would work.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct RefusedError {
    pub(crate) code: &'static str,
    pub(crate) detail: String,
}

/// An audit that could not be done, whatever kept it from being done. A finding of differences is no failure.
#[derive(Debug, thiserror::Error)]
#[error("the audit could not be done")]
pub(crate) struct AuditFailed(#[source] pub(crate) anyhow::Error);

/// Where and how a command answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// JSON on standard output, or text.
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether the answer shall be JSON.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// The command's answer: `value` for programs, `lines` for people.
    #[expect(clippy::print_stdout, reason = "the answer of the command")]
    pub(crate) fn answer(self, value: &Value, lines: &[String]) {
        if self.json {
            println!("{value}");
        } else {
            lines.iter().for_each(|line| println!("{line}"));
        }
    }

    /// Bytes that are the answer themselves.
    pub(crate) fn raw(self, bytes: &[u8]) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Says what is going on, beside the answer.
    #[expect(clippy::print_stderr, reason = "progress is for whoever watches")]
    pub(crate) fn progress(self, text: &str) {
        eprintln!("{text}");
    }

    /// Asks a person for consent. Without a person there, `--yes` must have given it.
    pub(crate) async fn confirm(self, question: &str) -> anyhow::Result<()> {
        if self.json || !std::io::stdin().is_terminal() {
            let detail = format!("{question} Nobody is there to be asked: add --yes, or --dry-run to change nothing");
            return Err(UsageError(detail).into());
        }
        self.progress(&format!("{question} [y/N]"));
        let answer = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map(|_| line)
        });
        let answer = answer.await??;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => anyhow::bail!("stopped: nothing was signed or sent"),
        }
    }

    /// Says what went wrong and gives the exit code for it. With `--json` the error is an object on standard output.
    #[expect(clippy::print_stderr, reason = "the failure of the command")]
    pub(crate) fn fail(self, error: &anyhow::Error) -> ExitCode {
        eprintln!("error: {error:#}");
        if self.json {
            self.answer(&json!({ "error": describe(error) }), &[]);
        }
        ExitCode::from(exit_code(error))
    }
}

/// The first of the causes that says whose fault it was.
fn exit_code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(FAILED)
}

fn code_of(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if error.is::<AuditFailed>() {
        return Some(NOT_AUDITED);
    }
    if error.is::<UsageError>() {
        return Some(USAGE);
    }
    if error.is::<RefusedError>() {
        return Some(REFUSED);
    }
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return Some(match error {
            ClientError::Unreachable { .. } => UNREACHABLE,
            ClientError::Refused(problem) if (400..500).contains(&problem.status) => REFUSED,
            ClientError::Refused(_) | ClientError::Unexpected { .. } => FAILED,
        });
    }
    error.downcast_ref::<ChainError>().map(|error| match error {
        ChainError::Unreachable { .. } => UNREACHABLE,
        ChainError::Reverted { .. } => REFUSED,
        _ => FAILED,
    })
}

/// The problem as the API gave it, or one in its form.
fn describe(error: &anyhow::Error) -> Value {
    let problem = error.chain().find_map(|cause| match cause.downcast_ref::<ClientError>() {
        Some(ClientError::Refused(problem)) => serde_json::to_value(problem).ok(),
        _ => None,
    });
    let refused = error.chain().find_map(|cause| cause.downcast_ref::<RefusedError>());
    // What kept an audit from being done says more than that it was not done.
    let cause = error.downcast_ref::<AuditFailed>().map_or(error, |failed| &failed.0);
    let code = refused.map_or_else(|| name(exit_code(cause)), |refused| refused.code);
    problem.unwrap_or_else(|| json!({ "code": code, "detail": format!("{error:#}") }))
}

const fn name(exit_code: u8) -> &'static str {
    match exit_code {
        USAGE => "usage",
        REFUSED => "refused",
        UNREACHABLE => "unreachable",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;
    use common::http::Problem;

    use super::*;

    fn refused(status: u16) -> anyhow::Error {
        let status = axum::http::StatusCode::from_u16(status).unwrap();
        ClientError::Refused(Box::new(Problem::new(status, "some_code", "do that"))).into()
    }

    #[test]
    fn exit_codes_tell_whose_fault_it_was() {
        let reverted = ChainError::Reverted { label: "deposit".to_owned(), reason: "no".to_owned() };
        for (error, code) in [
            (anyhow::anyhow!("anything"), FAILED),
            (UsageError("wrong".to_owned()).into(), USAGE),
            (refused(402), REFUSED),
            (refused(503), FAILED),
            (reverted.into(), REFUSED),
            (RefusedError { code: "no_match", detail: "nobody".to_owned() }.into(), REFUSED),
            (AuditFailed(anyhow::anyhow!("anything")).into(), NOT_AUDITED),
            (AuditFailed(refused(402)).into(), NOT_AUDITED),
        ] {
            assert_eq!(exit_code(&error), code, "{error}");
            // What was being done at the time does not matter.
            assert_eq!(exit_code(&Err::<(), _>(error).context("while deploying").unwrap_err()), code);
        }
    }

    #[test]
    fn errors_are_described_for_programs() {
        assert_eq!(describe(&refused(402).context("while deploying"))["code"], "some_code");
        let described = describe(&anyhow::anyhow!("cause").context("context"));
        assert_eq!(described, json!({ "code": "failed", "detail": "context: cause" }));
        let refused = RefusedError { code: "no_match", detail: "nobody".to_owned() };
        assert_eq!(describe(&refused.into()), json!({ "code": "no_match", "detail": "nobody" }));
    }
}

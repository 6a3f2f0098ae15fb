//! Nothing but what the processes of an agent's workers run, for agents that are part of another program than `wharfage`.

use std::process::ExitCode;

fn main() -> ExitCode {
    provider_agent::run_if_sandboxed().unwrap_or(ExitCode::FAILURE)
}

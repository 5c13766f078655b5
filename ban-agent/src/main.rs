//! The `ban-agent` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ban_agent::cli::main()
}

//! The unix control socket: requests of the CLI, answered by the daemon.

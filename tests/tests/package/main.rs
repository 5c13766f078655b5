//! The package ring: the Debian package on a clean root, booted in a container. One binary, and one
//! test at a time.

mod actions;
mod escape;
mod install;
mod journal;
mod operations;
mod systemd;

//! What fail2ban installs, and what its own programs say of the same lines. One binary: each costs a
//! link of the whole agent.

mod actions;
mod recipes;
mod regex;
mod samples;

//! Keeps claims, history and positions in SQLite, so that a ban survives kill -9 and a reboot.

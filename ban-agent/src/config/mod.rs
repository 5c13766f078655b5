//! Reads and checks the configuration; knows its words and defaults, does nothing with them.

//! Joins the stages into the running agent: tasks, channels, signals.

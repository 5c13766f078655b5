//! Tells the world what happened: log lines, JSON events, hooks. Text from logs is escaped here.

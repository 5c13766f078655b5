//! What an operator has told the agent at run time, kept over restarts: jails that ban nobody for a
//! while, and addresses that are never dropped for a while.

use jiff::Timestamp;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{Asker, Store, schema};

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An address or network is never dropped, as those of `[agent] allow` are not.
    Allow,
    /// A jail bans nobody, and tells nobody.
    Disable,
    /// A jail bans nobody, and tells whom it would have banned.
    DryRun,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Allow, Kind::Disable, Kind::DryRun];

    /// The word for it, in the store and on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Kind::Allow => "allow",
            Kind::Disable => "disable",
            Kind::DryRun => "dry-run",
        }
    }
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// What.
    pub kind: Kind,
    /// Which jail, or which address or network.
    pub name: String,
    /// Since when.
    pub at: Timestamp,
    /// Until when; `None`: until it is taken back.
    pub until: Option<Timestamp>,
    /// Why; as it was given in the store, escaped where it is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who ordered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Asker>,
}

impl Store {
    /// All orders that there are, some of which may be over. Those that the store cannot tell are
    /// forgotten, which the log says.
    #[must_use]
    pub fn orders(&self) -> Vec<Order> {
        // not to be kept: see [`super::reader::Ask::LetGo`]
        let db = schema::open_to_read(&self.path).map_err(|error| error.to_string());
        let orders = db.and_then(|db| read(&db).map_err(|error| error.to_string()));
        orders.unwrap_or_else(|error| {
            log::error!("what was ordered at run time cannot be read, and is forgotten: {error}");
            Vec::new()
        })
    }

    /// Records an order.
    pub fn order(&mut self, order: Order) {
        self.record(|pending| pending.order((order.kind, order.name.clone()), Some(order)));
    }

    /// Records that an order is over.
    pub fn end_order(&mut self, kind: Kind, name: &str) {
        self.record(|pending| pending.order((kind, name.to_owned()), None));
    }
}

fn read(db: &Connection) -> rusqlite::Result<Vec<Order>> {
    let mut statement = db.prepare("SELECT kind, name, at, until, reason, by FROM orders")?;
    let mut rows = statement.query([])?;
    let mut orders = Vec::new();
    let time = |ms| Timestamp::from_millisecond(ms).unwrap_or_default();
    while let Some(row) = rows.next()? {
        let word = row.get_ref(0)?.as_str()?;
        // one of a later version's making says nothing to us
        let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.word() == word) else { continue };
        let by: Option<String> = row.get(5)?;
        orders.push(Order {
            kind,
            name: row.get(1)?,
            at: time(row.get(2)?),
            until: row.get::<_, Option<i64>>(3)?.map(time),
            reason: row.get(4)?,
            by: by.and_then(|by| serde_json::from_str(&by).ok()),
        });
    }
    Ok(orders)
}

pub(super) fn write<'o>(
    db: &Connection,
    orders: impl Iterator<Item = (&'o (Kind, String), &'o Option<Order>)>,
) -> rusqlite::Result<()> {
    let mut put =
        db.prepare_cached("INSERT OR REPLACE INTO orders VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut remove = db.prepare_cached("DELETE FROM orders WHERE kind = ?1 AND name = ?2")?;
    for ((kind, name), order) in orders {
        match order {
            Some(Order { at, until, reason, by, .. }) => {
                let by = by.as_ref().and_then(|by| serde_json::to_string(by).ok());
                let until = until.map(Timestamp::as_millisecond);
                put.execute(params![kind.word(), name, at.as_millisecond(), until, reason, by])?
            }
            None => remove.execute(params![kind.word(), name])?,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn orders_outlive_the_agent_until_they_are_over() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("state.sqlite");
        let mut store = Store::open(&path).unwrap();
        assert!(store.orders().is_empty());
        let order = |kind, name: &str, until| Order {
            kind,
            name: name.into(),
            at: Timestamp::from_second(100).unwrap(),
            until,
            reason: Some("a test".into()),
            by: Some(Asker { user: 7, ..Asker::default() }),
        };
        let later = Timestamp::from_second(1000).ok();
        store.order(order(Kind::Disable, "sshd", later));
        store.order(order(Kind::Allow, "192.0.2.0/24", None));
        store.order(order(Kind::Allow, "192.0.2.0/24", later));
        store.order(order(Kind::DryRun, "web", None));
        store.barrier().await.unwrap();
        store.end_order(Kind::DryRun, "web");
        store.close();
        let store = Store::open(&path).unwrap();
        let mut orders = store.orders();
        orders.sort_by_key(|order| order.kind);
        assert_eq!(
            orders,
            [order(Kind::Allow, "192.0.2.0/24", later), order(Kind::Disable, "sshd", later)]
        );
        store.close();
    }
}

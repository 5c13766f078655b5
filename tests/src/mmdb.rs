//! Writes small databases in the MaxMind DB format 2.0
//! (<https://maxmind.github.io/MaxMind-DB/>), as GeoIP readers want them.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

/// A value of the data section.
#[derive(Clone, Debug)]
pub enum Item {
    /// UTF-8.
    Text(&'static str),
    /// A floating-point number.
    Double(f64),
    /// An unsigned number of 16 bits.
    U16(u16),
    /// An unsigned number of 32 bits.
    U32(u32),
    /// An unsigned number of 64 bits.
    U64(u64),
    /// Values in order.
    List(Vec<Item>),
    /// Values by name.
    Map(Vec<(&'static str, Item)>),
}

impl Item {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Item::Text(text) => {
                head(2, text.len(), out);
                out.extend(text.as_bytes());
            }
            Item::Double(number) => {
                head(3, 8, out);
                out.extend(number.to_be_bytes());
            }
            Item::U16(number) => {
                head(5, 2, out);
                out.extend(number.to_be_bytes());
            }
            Item::U32(number) => {
                head(6, 4, out);
                out.extend(number.to_be_bytes());
            }
            Item::U64(number) => {
                head(9, 8, out);
                out.extend(number.to_be_bytes());
            }
            Item::List(items) => {
                head(11, items.len(), out);
                items.iter().for_each(|item| item.write(out));
            }
            Item::Map(items) => {
                head(7, items.len(), out);
                for (name, item) in items {
                    Item::Text(name).write(out);
                    item.write(out);
                }
            }
        }
    }
}

/// The control byte, for sizes below 29 and one step beyond.
fn head(kind: u8, size: usize, out: &mut Vec<u8>) {
    // what is longer no test needs
    let size = u8::try_from(size).unwrap_or(u8::MAX);
    let short = size.min(29);
    if kind <= 7 {
        out.push(kind << 5 | short);
    } else {
        out.extend([short, kind - 7]);
    }
    out.extend((short == 29).then_some(size - short));
}

/// A record of the search tree.
#[derive(Clone, Copy)]
enum Record {
    Nothing,
    Node(usize),
    Data(usize),
}

/// What lies behind a bit that is clear, and behind one that is set.
type Node = (Record, Record);

/// The database of these networks (address and prefix length), none inside another.
pub fn database(networks: &[(&str, u32, Item)]) -> Result<Vec<u8>> {
    let mut tree: Vec<Node> = vec![(Record::Nothing, Record::Nothing)];
    let mut data = Vec::new();
    for (address, length, item) in networks {
        let address: IpAddr = address.parse()?;
        // IPv4 lies at ::/96
        let (bits, length) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)), length + 96),
            IpAddr::V6(address) => (u128::from(address), *length),
        };
        insert(&mut tree, bits, length, Record::Data(data.len()))?;
        item.write(&mut data);
    }
    let count = tree.len();
    let number = |record: Record| match record {
        Record::Nothing => count,
        Record::Node(node) => node,
        Record::Data(offset) => count + 16 + offset,
    };
    let mut out = Vec::new();
    for record in tree.into_iter().flat_map(|(clear, set)| [clear, set]) {
        let [_, number @ ..] = u32::try_from(number(record))?.to_be_bytes();
        out.extend(number);
    }
    out.extend([0; 16]);
    out.extend(data);
    out.extend(b"\xab\xcd\xefMaxMind.com");
    metadata(u32::try_from(count)?).write(&mut out);
    Ok(out)
}

fn insert(tree: &mut Vec<Node>, bits: u128, length: u32, data: Record) -> Result<()> {
    let mut node = 0;
    for depth in 0..length {
        let fresh = tree.len();
        let (clear, set) = tree.get_mut(node).context("no such node")?;
        let record = if bits >> (127 - depth) & 1 == 1 { set } else { clear };
        if depth + 1 == length {
            *record = data;
        } else if let Record::Node(next) = *record {
            node = next;
        } else {
            *record = Record::Node(fresh);
            node = fresh;
            tree.push((Record::Nothing, Record::Nothing));
        }
    }
    Ok(())
}

fn metadata(nodes: u32) -> Item {
    Item::Map(vec![
        ("node_count", Item::U32(nodes)),
        ("record_size", Item::U16(24)),
        ("ip_version", Item::U16(6)),
        ("database_type", Item::Text("GeoLite2-City")),
        ("languages", Item::List(vec![Item::Text("en")])),
        ("binary_format_major_version", Item::U16(2)),
        ("binary_format_minor_version", Item::U16(0)),
        ("build_epoch", Item::U64(1_795_000_000)),
        ("description", Item::Map(vec![("en", Item::Text("a test"))])),
    ])
}

/// A city, as GeoLite2-City has it.
pub fn city(country: &'static str, name: &'static str, at: (f64, f64)) -> Item {
    let names = |name| Item::Map(vec![("en", Item::Text(name))]);
    Item::Map(vec![
        ("city", Item::Map(vec![("names", names(name))])),
        ("continent", Item::Map(vec![("code", Item::Text("EU")), ("names", names("Europe"))])),
        (
            "country",
            Item::Map(vec![("iso_code", Item::Text(country)), ("names", names("a country"))]),
        ),
        (
            "location",
            Item::Map(vec![
                ("latitude", Item::Double(at.0)),
                ("longitude", Item::Double(at.1)),
                ("time_zone", Item::Text("Europe/Amsterdam")),
            ]),
        ),
        ("postal", Item::Map(vec![("code", Item::Text("1012"))])),
        (
            "subdivisions",
            Item::List(vec![Item::Map(vec![
                ("iso_code", Item::Text("NH")),
                ("names", names("North Holland")),
            ])]),
        ),
    ])
}

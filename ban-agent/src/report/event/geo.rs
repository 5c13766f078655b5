//! Where an address is, by a MaxMind database of the operator's. Without one, events have no place.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use maxminddb::{MaxMindDbError, Reader, geoip2::City};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::escape;

/// Where an address is, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// ISO code of its country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Number of the autonomous system that announces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asn: Option<u32>,
    /// That system's name, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

/// What databases say of an address: MaxMind's nested layouts City, Country and ASN, and the flat one
/// of ip-location-db and IPinfo.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    #[serde(borrow)]
    country: Option<Country<'a>>,
    country_code: Option<&'a str>,
    autonomous_system_number: Option<u32>,
    autonomous_system_organization: Option<&'a str>,
    asn: Option<&'a str>,
    as_name: Option<&'a str>,
}

/// A country, nested; or its name, flat.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Country<'a> {
    Nested {
        #[serde(default, borrow)]
        iso_code: Option<&'a str>,
    },
    Flat(&'a str),
}

impl Record<'_> {
    fn place(&self) -> Place {
        let is_code =
            |code: &&str| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        let country = match &self.country {
            Some(Country::Nested { iso_code }) => *iso_code,
            Some(Country::Flat(code)) => self.country_code.or(Some(code)),
            None => self.country_code,
        };
        let asn = self.asn.and_then(|asn| asn.strip_prefix("AS")?.parse().ok());
        let network = self.autonomous_system_organization.or(self.as_name);
        Place {
            // it becomes a label, so nothing else will do
            country: country.filter(is_code).map(ToOwned::to_owned),
            asn: self.autonomous_system_number.or(asn),
            network: network.map(|name| escape(name.as_bytes())),
        }
    }
}

/// A database, and how many bans there were by country. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Geo(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// `None`: none is configured.
    path: Option<PathBuf>,
    reader: RwLock<Option<Reader<Vec<u8>>>>,
    countries: Mutex<BTreeMap<String, u64>>,
    trouble: Mutex<Option<String>>,
}

impl Geo {
    /// The database at `path`, of the kind City or Country. One that cannot be read is said so
    /// ([`Geo::trouble`]); nothing else depends on it.
    #[must_use]
    pub fn open(path: Option<PathBuf>) -> Geo {
        let geo = Geo(Arc::new(Shared { path, ..Shared::default() }));
        geo.refresh();
        geo
    }

    /// Reads the file again; what was known stays if that fails.
    pub fn refresh(&self) {
        let Some(path) = &self.0.path else { return };
        let trouble = match read(path) {
            Ok(reader) => {
                *self.0.reader.write().unwrap_or_else(PoisonError::into_inner) = Some(reader);
                None
            }
            Err(error) => Some(format!("geoip: {}: {error}", path.display())),
        };
        if let Some(trouble) = &trouble {
            log::warn!("{trouble}");
        }
        *self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Why the database could not be read, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What ECS has under `geo`; `None` if nothing is known of the address.
    #[must_use]
    pub fn of(&self, address: IpAddr) -> Option<Value> {
        let reader = self.0.reader.read().unwrap_or_else(PoisonError::into_inner);
        let found = reader.as_ref()?.lookup(address).ok()?;
        let city = found.decode::<City<'_>>().ok().flatten();
        let mut geo = city.as_ref().map(fields).unwrap_or_default();
        if geo.is_empty() {
            let country = found.decode::<Record<'_>>().ok()??.place().country?;
            geo.insert("country_iso_code".to_owned(), country.into());
        }
        Some(geo.into())
    }

    /// The country and the network of an address, as far as they are known.
    #[must_use]
    pub fn place(&self, address: IpAddr) -> Place {
        let reader = self.0.reader.read().unwrap_or_else(PoisonError::into_inner);
        let found = reader.as_ref().and_then(|reader| reader.lookup(address).ok());
        let record = found.and_then(|found| found.decode::<Record<'_>>().ok().flatten());
        record.unwrap_or_default().place()
    }

    /// Counts a ban of this address for its country.
    pub fn count(&self, address: IpAddr) {
        if self.0.path.is_none() {
            return;
        }
        let country = self.place(address).country.unwrap_or_else(|| "unknown".to_owned());
        let mut countries = self.0.countries.lock().unwrap_or_else(PoisonError::into_inner);
        *countries.entry(country).or_default() += 1;
    }

    /// How many bans were counted, by ISO code of the country.
    #[must_use]
    pub fn countries(&self) -> BTreeMap<String, u64> {
        self.0.countries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Into memory: a file that is mapped and then cut would kill the agent.
fn read(path: &Path) -> Result<Reader<Vec<u8>>, MaxMindDbError> {
    Reader::open_readfile(path)
}

fn fields(city: &City<'_>) -> Map<String, Value> {
    let mut geo = Map::new();
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            geo.insert(name.to_owned(), escape(value.as_bytes()).into());
        }
    };
    put("continent_code", city.continent.code);
    put("continent_name", city.continent.names.english);
    put("country_iso_code", city.country.iso_code);
    put("country_name", city.country.names.english);
    put("city_name", city.city.names.english);
    put("timezone", city.location.time_zone);
    put("postal_code", city.postal.code);
    if let Some(region) = city.subdivisions.first() {
        let both = city.country.iso_code.zip(region.iso_code);
        let code = both.map(|(country, region)| format!("{country}-{region}"));
        put("region_iso_code", code.as_deref());
        put("region_name", region.names.english);
    }
    if let (Some(lat), Some(lon)) = (city.location.latitude, city.location.longitude) {
        geo.insert("location".to_owned(), json!({ "lat": lat, "lon": lon }));
    }
    geo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_layout_tells_the_country() {
        let place = |text| serde_json::from_str::<Record<'_>>(text).unwrap().place();
        let city =
            place(r#"{"country":{"geoname_id":1,"iso_code":"DE","names":{"en":"Germany"}}}"#);
        assert_eq!(city.country.as_deref(), Some("DE"));
        assert_eq!(place(r#"{"country_code":"FR"}"#).country.as_deref(), Some("FR"));
        let asn =
            r#"{"autonomous_system_number":64496,"autonomous_system_organization":"Example"}"#;
        let asn = place(asn);
        assert_eq!((asn.asn, asn.network.as_deref()), (Some(64496), Some("Example")));
        let flat =
            r#"{"country":"France","country_code":"FR","asn":"AS64500","as_name":"Example"}"#;
        let flat = place(flat);
        assert_eq!((flat.country.as_deref(), flat.asn), (Some("FR"), Some(64500)));
        assert_eq!(place(r#"{"country_code":"x["}"#), Place::default());
    }

    #[test]
    fn nothing_is_known_without_a_database_and_trouble_is_said() {
        let address = "192.0.2.1".parse().unwrap();
        let none = Geo::open(None);
        none.count(address);
        assert_eq!((none.of(address), none.trouble()), (None, None));
        assert!(none.countries().is_empty());

        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("junk.mmdb");
        std::fs::write(&path, b"\xab\xcd\xefMaxMind.com junk").unwrap();
        for path in [path, folder.path().join("absent.mmdb")] {
            let geo = Geo::open(Some(path.clone()));
            assert!(geo.trouble().unwrap().contains(path.to_str().unwrap()), "{geo:?}");
            assert_eq!(geo.of(address), None);
            geo.count(address);
            assert_eq!(geo.countries(), BTreeMap::from([("unknown".to_owned(), 1)]));
        }
    }
}

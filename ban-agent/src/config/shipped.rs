//! The filters and jails inside the binary: `dist/shipped/` of the source tree.

macro_rules! shipped {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../dist/shipped/", $name)))
    };
}

/// Name and text of each.
pub(super) const SHIPPED: &[(&str, &str)] = &[
    shipped!("apache-auth.toml"),
    shipped!("ceph.toml"),
    shipped!("cloudstack.toml"),
    shipped!("dovecot.toml"),
    shipped!("nginx-http-auth.toml"),
    shipped!("postfix-sasl.toml"),
    shipped!("recidive.toml"),
    shipped!("sshd.toml"),
];

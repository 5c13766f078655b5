//! The ground that the system ring stands on: namespaces, links, and that they go away.

use std::{path::Path, process::Command};

use tests::net::{Namespace, join, run};

#[test]
fn two_namespaces_reach_each_other_and_vanish() {
    if run(Command::new("id").arg("-u")).unwrap().trim() != "0" {
        println!("SKIPPED: namespaces need root");
        return;
    }
    let (one, other) = (Namespace::new("one").unwrap(), Namespace::new("other").unwrap());
    join(&one, "eth0", &other, "eth0").unwrap();
    for (namespace, last) in [(&one, 1), (&other, 2)] {
        namespace.address("eth0", &format!("198.51.100.{last}/24")).unwrap();
        namespace.address("eth0", &format!("2001:db8:64::{last}/64")).unwrap();
    }
    for target in ["198.51.100.1", "2001:db8:64::1"] {
        run(other.command("ping").args(["-c", "1", "-W", "2", target])).unwrap();
    }
    let stranger = other.command("ping").args(["-c", "1", "-W", "1", "203.0.113.1"]).output();
    assert!(!stranger.unwrap().status.success());
    let paths = [one.name(), other.name()].map(|name| Path::new("/run/netns").join(name));
    assert!(paths.iter().all(|path| path.exists()));
    drop((one, other));
    assert!(paths.iter().all(|path| !path.exists()));
}

//! Bans a network once enough of its members are banned. The wider claim is derived from the
//! members' claims alone: it lasts as long as enough of them do, and widens over nobody that is
//! guarded.

use std::ops::RangeInclusive;

use super::{Cause, Claim, Ended, Holder, Ledger, Plan};
use crate::{
    clock::Boot,
    jail::Widen,
    net::{IpNet, PrefixSet},
};

impl Ledger {
    /// Returns the wider claim that follows from `claim`, which was just made. Make that one, too,
    /// and ask again: a /128 may lead to a /64, and that to a /48.
    #[must_use]
    pub fn widened(&self, claim: &Claim, rule: &Widen, onlink: &PrefixSet) -> Option<Claim> {
        let (prefix, members) = step(rule, claim.prefix)?;
        if self.refusal(prefix, &claim.holder, false).is_some() || onlink.overlap(prefix).is_some()
        {
            return None;
        }
        let until = nth(self.ends(prefix, members, claim), rule.members.max(2))?;
        Some(Claim { prefix, until, derived: true, ..claim.clone() })
    }

    /// Takes back what followed from claims in `plan` that were lifted, or must not be any more:
    /// the wider claims end, too, or earlier if enough members are left. Each is looked at once,
    /// after all that has ended; those that now end earlier are returned. `rule`: how a holder
    /// widens.
    ///
    /// What made room for another still counts for its network: no ban ends because
    /// others came.
    pub fn narrow(
        &mut self,
        rule: impl Fn(&Holder) -> Option<Widen>,
        plan: &mut Plan,
    ) -> Vec<Claim> {
        let (mut from, mut shorter) = (0, Vec::new());
        while self.has_derived() && from < plan.ended.len() {
            let ended = plan.ended.get(from..).unwrap_or_default();
            let lifted = |ended: &&Ended| matches!(ended.cause, Cause::Released | Cause::Allowed);
            let mut wider: Vec<Claim> = ended
                .iter()
                .filter(lifted)
                .flat_map(|ended| self.derived_from(&ended.claim))
                .collect();
            wider.sort_by_key(|claim| (u8::MAX - claim.prefix.prefix_len(), claim.prefix));
            wider.dedup_by(|a, b| Claim { until: b.until, ..a.clone() } == *b);
            from = plan.ended.len();
            for claim in wider {
                let (count, lengths) = members(rule(&claim.holder).as_ref(), claim.prefix);
                match nth(self.ends(claim.prefix, lengths, &claim), count) {
                    Some(until) if until >= claim.until => {}
                    Some(until) => {
                        self.shorten(&claim, until, plan);
                        shorter.push(Claim { until, ..claim });
                    }
                    None => self.release_claim(&claim, plan),
                }
            }
        }
        shorter
    }

    /// Returns the claims around `claim` that may follow from it.
    fn derived_from(&self, claim: &Claim) -> Vec<Claim> {
        let around = self.covering(claim.prefix).flat_map(|ban| ban.derived().collect::<Vec<_>>());
        let same = |wider: &Claim| wider.holder == claim.holder && wider.ports == claim.ports;
        around.filter(|wider| wider.prefix != claim.prefix && same(wider)).collect()
    }

    /// Ends of the claims like `claim` on the members of `prefix`.
    fn ends(&self, prefix: IpNet, members: RangeInclusive<u8>, claim: &Claim) -> Vec<Boot> {
        self.within(prefix)
            .filter(|ban| members.contains(&ban.prefix.prefix_len()))
            .filter_map(|ban| ban.end_of(&claim.holder, &claim.ports))
            .collect()
    }
}

/// Returns until when there are `count` members, if there are.
fn nth(mut ends: Vec<Boot>, count: usize) -> Option<Boot> {
    ends.sort_unstable_by(|a, b| b.cmp(a));
    ends.get(count.checked_sub(1)?).copied()
}

/// Returns how many members `network` takes, and of which lengths. Where the rule is gone, at least
/// two.
fn members(rule: Option<&Widen>, network: IpNet) -> (usize, RangeInclusive<u8>) {
    let lengths = rule.map(|rule| lengths(rule, network)).unwrap_or_default();
    let narrower = lengths.iter().copied().filter(|length| *length > network.prefix_len()).min();
    let longest = narrower.unwrap_or(network.max_prefix_len());
    let count = rule.map_or(2, |rule| rule.members.max(2));
    (count, network.prefix_len().saturating_add(1)..=longest)
}

/// Returns the lengths that a ban of `prefix` is widened to, the longest first.
fn lengths(rule: &Widen, prefix: IpNet) -> Vec<u8> {
    match prefix {
        IpNet::V4(_) => rule.v4.clone(),
        IpNet::V6(_) => {
            rule.translators.lengths(prefix, &rule.v4).unwrap_or_else(|| rule.v6.clone())
        }
    }
}

/// Returns the network that `prefix` would be widened to, and the lengths of that network's
/// members.
fn step(rule: &Widen, prefix: IpNet) -> Option<(IpNet, RangeInclusive<u8>)> {
    let translators = rule.translators.lengths(prefix, &rule.v4);
    let mut narrower = prefix.max_prefix_len();
    for length in lengths(rule, prefix) {
        if length < prefix.prefix_len() {
            let wider = IpNet::new(prefix.addr(), length).ok()?.trunc();
            // strangers are not banned together
            let mixes = translators.is_none() && rule.translators.mixes(wider);
            return (!mixes).then(|| (wider, length + 1..=narrower));
        }
        narrower = length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::{Holder, Plan, Protected},
        net::{Translators, parse_prefix},
    };

    fn net(text: &str) -> IpNet {
        parse_prefix(text).unwrap()
    }

    fn rule() -> Widen {
        let own = [Translators::parse("2001:db8:64::/96").unwrap()];
        let translators = Translators::new(&own);
        Widen { members: 3, v4: vec![24], v6: vec![64, 48, 16], translators }
    }

    /// Bans each, and says what the bans were widened to.
    fn widened(
        ledger: &mut Ledger,
        jail: &str,
        bans: &[(&str, u64)],
        onlink: &PrefixSet,
    ) -> Vec<String> {
        let mut widened = Vec::new();
        for (prefix, until) in bans {
            let holder = Holder::Jail(jail.into());
            let claim = Claim {
                prefix: net(prefix),
                holder,
                until: Boot(*until),
                ports: Vec::new(),
                derived: false,
            };
            let mut next = Some(claim);
            let mut first = true;
            while let Some(claim) = next {
                ledger.claim(&claim, false, Boot(0), &mut Plan::default());
                if !std::mem::take(&mut first) {
                    widened.push(format!("{} {}", claim.prefix, claim.until.0));
                }
                next = ledger.widened(&claim, &rule(), onlink);
            }
        }
        widened
    }

    #[test]
    fn three_members_make_a_network() {
        let mut ledger = Ledger::new(100);
        let none = PrefixSet::default();
        let two = [("192.0.2.1", 30), ("192.0.2.2", 10), ("192.0.2.2", 11), ("192.0.3.3", 99)];
        assert!(widened(&mut ledger, "a", &two, &none).is_empty());
        // Another jail's members do not count.
        assert!(widened(&mut ledger, "b", &[("192.0.2.3", 20)], &none).is_empty());
        // It lasts as long as three members do, and longer if one comes that does.
        assert_eq!(widened(&mut ledger, "a", &[("192.0.2.4", 20)], &none), ["192.0.2.0/24 11"]);
        assert_eq!(widened(&mut ledger, "a", &[("192.0.2.5", 25)], &none), ["192.0.2.0/24 20"]);
    }

    #[test]
    fn ports_widen_with_their_bans_in_any_order() {
        let (mut ledger, mut plan) = (Ledger::new(9), Plan::default());
        let ports = crate::net::parse_ports("tcp/443,80").unwrap();
        let members = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|text| Claim {
            prefix: net(text),
            holder: Holder::Jail("a".into()),
            until: Boot(9),
            ports: ports.clone(),
            derived: false,
        });
        for claim in &members {
            ledger.claim(claim, false, Boot(0), &mut plan);
        }
        let wider = ledger.widened(&members[2], &rule(), &PrefixSet::default()).unwrap();
        assert_eq!((wider.prefix, wider.ports), (net("192.0.2.0/24"), ports));
    }

    #[test]
    fn networks_make_wider_networks() {
        let mut ledger = Ledger::new(100);
        let none = PrefixSet::default();
        let bans: Vec<(String, u64)> = (0..3)
            .flat_map(|subnet| (1..4).map(move |host| (format!("2001:db8:0:{subnet}::{host}"), 50)))
            .collect();
        let bans: Vec<(&str, u64)> = bans.iter().map(|(text, end)| (text.as_str(), *end)).collect();
        let expected = ["2001:db8::/64 50", "2001:db8:0:1::/64 50", "2001:db8:0:2::/64 50"];
        let all = widened(&mut ledger, "a", &bans, &none);
        assert_eq!(all[..3], expected);
        assert_eq!(all[3..], ["2001:db8::/48 50"]);
    }

    /// Three members each, of networks in which nobody knows his neighbour.
    #[test]
    fn strangers_behind_a_translator_are_not_banned_together() {
        let none = PrefixSet::default();
        for (members, expected) in [
            (["64:ff9b::c633:6401", "64:ff9b::808:808", "64:ff9b::909:909"], None),
            (
                ["64:ff9b::c633:6401", "64:ff9b::c633:6402", "64:ff9b::c633:6403"],
                Some("64:ff9b::c633:6400/120"),
            ),
            (
                ["2001:db8:64::c633:6401", "2001:db8:64::c633:6402", "2001:db8:64::c633:6403"],
                Some("2001:db8:64::c633:6400/120"),
            ),
            (["2001:0:1:2::1", "2001:0:1:2::2", "2001:0:1:2::3"], None),
            (
                ["2002:102:301::/48", "2002:102:302::/48", "2002:102:303::/48"],
                Some("2002:102:300::/40"),
            ),
            // 2001::/16 would take Teredo in
            (["2001:1::/48", "2001:2::/48", "2001:3::/48"], None),
            (["2a00:1::/48", "2a00:2::/48", "2a00:3::/48"], Some("2a00::/16")),
        ] {
            let bans = members.map(|member| (member, 50));
            let wider = widened(&mut Ledger::new(100), "a", &bans, &none);
            let expected = expected.map(|net| format!("{net} 50"));
            assert_eq!(wider, expected.into_iter().collect::<Vec<_>>(), "{members:?}");
        }
    }

    #[test]
    fn it_narrows_when_members_are_let_go() {
        let mut ledger = Ledger::new(100);
        let none = PrefixSet::default();
        let bans = [("192.0.2.1", 50), ("192.0.2.2", 40), ("192.0.2.3", 30), ("192.0.2.4", 20)];
        widened(&mut ledger, "a", &bans, &none);
        let holder = Holder::Jail("a".into());
        let mut let_go = |text: &str| {
            let mut plan = Plan::default();
            ledger.release(net(text), Some(&holder), &mut plan);
            let shorter = ledger.narrow(|_| Some(rule()), &mut plan);
            let shorter = shorter.first().map(|claim| claim.until.0);
            let wider = ledger.get(net("192.0.2.0/24")).map(|ban| ban.until().0);
            assert_eq!(plan.ended.len(), if wider.is_some() { 1 } else { 2 });
            (shorter, wider)
        };
        // two that end later are left, and one that ends sooner
        assert_eq!(let_go("192.0.2.2"), (Some(20), Some(20)));
        // what ends sooner had no part in it
        assert_eq!(let_go("192.0.2.1"), (None, None));
        assert_eq!(ledger.len(), 2);
        assert_eq!(ledger.next_deadline(), Some(Boot(20)));
    }

    #[test]
    fn what_somebody_banned_for_longer_is_not_narrowed() {
        let mut ledger = Ledger::new(100);
        let none = PrefixSet::default();
        let bans = [("192.0.2.1", 50), ("192.0.2.2", 40), ("192.0.2.3", 30)];
        widened(&mut ledger, "a", &bans, &none);
        let holder = Holder::Jail("a".into());
        let wider = Claim {
            prefix: net("192.0.2.0/24"),
            holder: holder.clone(),
            until: Boot(99_999),
            ports: Vec::new(),
            derived: false,
        };
        let mut plan = Plan::default();
        ledger.claim(&wider, false, Boot(0), &mut plan);
        ledger.release(net("192.0.2.1"), Some(&holder), &mut plan);
        assert_eq!(ledger.narrow(|_| Some(rule()), &mut plan), []);
        let ban = ledger.get(wider.prefix).unwrap();
        assert_eq!((ban.until(), ban.derived().count()), (Boot(99_999), 0));
    }

    #[test]
    fn members_that_are_let_go_at_once_take_their_networks_along() {
        let none = PrefixSet::default();
        let hosts = |subnets: std::ops::Range<u32>| {
            subnets.flat_map(|net| (1..5).map(move |host| format!("2001:db8:0:{net}::{host}")))
        };
        let bans: Vec<(String, u64)> = hosts(0..4).map(|text| (text, 50)).collect();
        let bans: Vec<(&str, u64)> = bans.iter().map(|(text, end)| (text.as_str(), *end)).collect();
        for (lifted, left) in [(1, 21), (2, 14), (4, 0)] {
            let mut ledger = Ledger::new(100);
            widened(&mut ledger, "a", &bans, &none);
            assert_eq!(ledger.len(), 21);
            let mut plan = Plan::default();
            for host in hosts(0..lifted).filter(|host| lifted > 1 || host.ends_with('1')) {
                ledger.release(net(&host), None, &mut plan);
            }
            assert_eq!(ledger.narrow(|_| Some(rule()), &mut plan), []);
            // two subnets are not enough for the /48
            let left = if lifted == 1 { left - 1 } else { left - u32::from(lifted == 2) * 4 };
            assert_eq!(ledger.len(), left as usize, "{lifted}");
        }
        let mut ledger = Ledger::new(100);
        widened(&mut ledger, "a", &bans, &none);
        let mut plan = Plan::default();
        ledger.set_allowed(&hosts(0..4).map(|host| net(&host)).collect::<Vec<_>>(), &mut plan);
        ledger.narrow(|_| None, &mut plan);
        assert!(ledger.is_empty(), "the allow list takes all of them in, and no rule is left");
    }

    #[test]
    fn never_over_what_is_guarded() {
        let bans = [("192.0.2.1", 30), ("192.0.2.2", 30), ("192.0.2.3", 30)];
        let none = PrefixSet::default();
        let mut allowing = Ledger::new(100);
        allowing.set_allowed(&[net("192.0.2.200")], &mut Plan::default());
        assert!(widened(&mut allowing, "a", &bans, &none).is_empty());
        let mut own = Ledger::new(100);
        own.set_protected(&[(net("192.0.2.200"), Protected::Own)], &mut Plan::default());
        assert!(widened(&mut own, "a", &bans, &none).is_empty());
        let onlink = [net("192.0.2.128/25")].into_iter().collect();
        assert!(widened(&mut Ledger::new(100), "a", &bans, &onlink).is_empty());
        assert_eq!(widened(&mut Ledger::new(100), "a", &bans, &none).len(), 1);
    }
}

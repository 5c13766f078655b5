//! The time servers that ntpd uses, of ntpsec and of the reference implementation, as ntpq(1) asks for
//! them: control messages (RFC 9327) over loopback.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use super::clocks::{PATIENCE, odd};

/// Where ntpd answers this host, unless its `restrict` says otherwise.
pub(super) const NTPD: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 123),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 123),
];
/// Associations that ntpd is asked about; it rarely has more than ten.
const MAX_ASSOCIATIONS: usize = 64;
const READ_STATUS: u8 = 1;
const READ_VARIABLES: u8 = 2;
/// Octets before the data.
const HEAD: usize = 12;

/// Returns the sources of a daemon: which associations it has, then the address of each.
pub(super) fn sources(daemon: SocketAddr) -> io::Result<Vec<IpAddr>> {
    let here: IpAddr =
        if daemon.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((here, 0))?;
    socket.connect(daemon)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let associations = ask(&socket, READ_STATUS, 1, [0, 0], b"")?;
    let (associations, _) = associations.as_chunks::<4>();
    let mut found = Vec::new();
    for (sequence, [a, b, ..]) in (2..).zip(associations.iter().take(MAX_ASSOCIATIONS)) {
        let data = ask(&socket, READ_VARIABLES, sequence, [*a, *b], b"srcadr")?;
        // one of a pool has no address yet
        found.extend(address(&data).filter(|address| !address.is_unspecified()));
    }
    Ok(found)
}

/// Returns the data of the answer; none if it is an error, as about an association that is gone.
fn ask(
    socket: &UdpSocket,
    operation: u8,
    sequence: u16,
    association: [u8; 2],
    data: &[u8],
) -> io::Result<Vec<u8>> {
    const VERSION_AND_MODE: u8 = 2 << 3 | 6;
    const ANSWER: u8 = 0x80;
    const ERROR: u8 = 0x40;
    let ([s0, s1], [a0, a1]) = (sequence.to_be_bytes(), association);
    let count = u8::try_from(data.len()).map_err(|_| odd())?;
    let mut request = vec![VERSION_AND_MODE, operation, s0, s1, 0, 0, a0, a1, 0, 0, 0, count];
    request.extend(data);
    request.resize(request.len().next_multiple_of(4), 0);
    socket.send(&request)?;
    let mut answer = vec![0; 1024];
    let size = socket.recv(&mut answer)?;
    answer.truncate(size);
    let [first, kind, s2, s3, _, _, _, _, _, _, c0, c1, ..] = *answer else { return Err(odd()) };
    if first & 7 != 6 || kind & ANSWER == 0 || kind & 0x1f != operation || [s2, s3] != [s0, s1] {
        return Err(odd());
    }
    let count = if kind & ERROR == 0 { usize::from(u16::from_be_bytes([c0, c1])) } else { 0 };
    Ok(answer.get(HEAD..HEAD + count).ok_or_else(odd)?.to_vec())
}

/// That of `srcadr=192.0.2.123\r\n`.
fn address(data: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(data).ok()?.trim().strip_prefix("srcadr=")?;
    text.split('%').next()?.parse().ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// What ntpd of ntpsec 1.2.2 answered that had `server 192.0.2.123`, `server 2001:db8::123` and a
    /// `pool` that nobody knows; then an association that is gone meanwhile.
    #[test]
    fn ntpd_tells_its_sources() {
        let answers = [
            "d6810001c016000000000010456988114568801145678011456a8011",
            "d682000288114569000000107372636164723d302e302e302e300d0a",
            "d682000380114568000000167372636164723d323030313a6462383a3a3132330d0a0000",
            "d682000480114567000000147372636164723d3139322e302e322e3132330d0a",
            "d6c200050400456a00000000",
        ];
        let answers = answers.map(|text| {
            let digits = text.as_bytes().chunks(2);
            let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
            digits.map(byte).collect::<Vec<u8>>()
        });
        let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = daemon.local_addr().unwrap();
        let serving = thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let mut request = [0; 64];
                let (size, peer) = daemon.recv_from(&mut request).unwrap();
                asked.push(request[..size].to_vec());
                daemon.send_to(&answer, peer).unwrap();
            }
            asked
        });
        let found: Vec<_> = sources(at).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["2001:db8::123", "192.0.2.123"]);
        let asked = serving.join().unwrap();
        assert_eq!(asked[0], [0x16, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(asked[1], *b"\x16\x02\0\x02\0\0\x45\x69\0\0\0\x06srcadr\0\0");
        // there is none any more
        assert!(sources(at).is_err());
    }

    #[test]
    fn whatever_else_answers_is_no_ntpd() {
        for answer in [&b""[..], b"\xd6\x81\0\x01", &[0; 48], b"\xd6\x81\0\x01\0\0\0\0\0\0\xff\xff"]
        {
            let daemon = UdpSocket::bind("127.0.0.1:0").unwrap();
            let at = daemon.local_addr().unwrap();
            let serving = thread::spawn(move || {
                let (_, peer) = daemon.recv_from(&mut [0; 64]).unwrap();
                daemon.send_to(answer, peer).unwrap();
            });
            assert!(sources(at).is_err(), "{answer:?}");
            serving.join().unwrap();
        }
    }
}

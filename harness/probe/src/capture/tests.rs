//! Packets made by hand, and a recorded capture of a meshed and an unmeshed pair.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use ztc_wire::{Canary, Captured, Speaks, Watch};

use super::filter::{self, Instruction, instructions};
use super::sieve::Sieve;

/// Captured on a node of a real cluster, with Istio ambient (`docs/facts.md`): Ethernet, 84 packets.
const RECORDED: &[u8] = include_bytes!("../../tests/facts/wire.pcap");

const CLIENT: [u8; 4] = [10, 244, 1, 5];
const SERVER: [u8; 4] = [10, 244, 0, 7];
const STRANGER: [u8; 4] = [10, 244, 0, 9];
const NODE: [u8; 4] = [172, 18, 0, 3];
const HBONE: u16 = 15008;

/// The packets of a file of tcpdump, little-endian, from their IP headers on.
fn recorded() -> Vec<&'static [u8]> {
    const FILE_HEADER: usize = 24;
    const PACKET_HEADER: usize = 16;
    const ETHERNET: usize = 14;
    let mut rest = &RECORDED[FILE_HEADER..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        let (packet, others) = rest[PACKET_HEADER..].split_at(length);
        packets.push(&packet[ETHERNET..]);
        rest = others;
    }
    packets
}

fn canary(text: &str) -> Canary {
    serde_json::from_value(text.into()).unwrap()
}

fn watch(addresses: &[[u8; 4]], canaries: &[&str]) -> Watch {
    Watch {
        addresses: addresses.iter().map(|it| IpAddr::from(*it)).collect(),
        canaries: canaries.iter().map(|it| canary(it)).collect(),
        tunnel_port: HBONE,
    }
}

fn captured<B: AsRef<[u8]>>(watch: Watch, packets: &[B]) -> Captured {
    let mut sieve = Sieve::new(watch);
    for packet in packets {
        sieve.take(packet.as_ref());
    }
    sieve.captured()
}

fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = [0; 20];
    (header[0], header[8], header[9]) = (0x45, 64, protocol);
    header[2..4].copy_from_slice(&total);
    header[12..16].copy_from_slice(&source);
    header[16..20].copy_from_slice(&destination);
    [&header, payload].concat()
}

fn udp(source: ([u8; 4], u16), destination: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let ports = [source.1, destination.1, length, 0].map(u16::to_be_bytes).concat();
    ipv4(source.0, destination.0, 17, &[&ports, payload].concat())
}

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn tcp(
    source: ([u8; 4], u16),
    destination: ([u8; 4], u16),
    (sequence, flags): (u32, u8),
    payload: &[u8],
) -> Vec<u8> {
    let mut header = [0; 20];
    header[0..2].copy_from_slice(&source.1.to_be_bytes());
    header[2..4].copy_from_slice(&destination.1.to_be_bytes());
    header[4..8].copy_from_slice(&sequence.to_be_bytes());
    (header[12], header[13]) = (5 << 4, flags);
    ipv4(source.0, destination.0, 6, &[&header, payload].concat())
}

/// What a node sends to another one in place of a packet of a pod.
fn wrapped(packet: &[u8], port: u16, header: &[u8]) -> Vec<u8> {
    udp((NODE, 40_000), (NODE, port), &[header, &[0; 14], packet].concat())
}

fn asks(text: &str) -> Vec<u8> {
    tcp((CLIENT, 20_000), (SERVER, 9000), (1, ACK), text.as_bytes())
}

const WORDS: &str = "ztc1 00c0ffee00c0ffee0123456789abcdef\n";
const CANARY: &str = "00c0ffee00c0ffee";

#[test]
fn a_recorded_meshed_pair_speaks_tls_and_an_unmeshed_one_in_clear() {
    let [far, near, other] = [[10, 244, 1, 232], [10, 244, 0, 40], [10, 244, 1, 50]];
    let watch = watch(&[far, near, other, [10, 244, 1, 148]], &["GET /plain", "GET /a"]);
    let Captured { packets, sightings, tunnels, .. } = captured(watch, &recorded());
    assert_eq!(packets, 84);
    let found: Vec<&str> = sightings.iter().map(|it| it.canary.as_str()).collect();
    assert_eq!(found, ["GET /plain"]);
    let told: Vec<_> = tunnels.iter().map(|it| (it.client.to_string(), it.speaks)).collect();
    assert_eq!(
        told,
        [
            ("10.244.1.50:42136".to_owned(), Speaks::Tls13),
            ("10.244.1.232:40540".to_owned(), Speaks::Tls13),
        ]
    );
    assert!(tunnels.iter().all(|it| it.sent > 0 && it.received > 0), "{tunnels:?}");
    assert!(tunnels[1].excerpt[0].starts_with("0000  16 03 01 "), "{:?}", tunnels[1].excerpt);
}

#[test]
fn a_canary_is_found_with_what_is_around_it() {
    let watch = watch(&[CLIENT], &[CANARY]);
    let captured = captured(watch, &[asks(WORDS), asks(WORDS)]);
    let [sighting] = captured.sightings.as_slice() else { panic!("{captured:?}") };
    assert_eq!(sighting.count, 2);
    assert_eq!(sighting.source.to_string(), "10.244.1.5:20000");
    assert_eq!(sighting.destination.to_string(), "10.244.0.7:9000");
    assert!(sighting.excerpt[0].ends_with("ztc1 00c0ffee00c"), "{:?}", sighting.excerpt);
    assert_eq!((captured.packets, captured.tunnels.len()), (2, 0));
}

#[test]
fn a_canary_in_two_packets_is_found_wherever_it_is_cut() {
    for cut in 0..=WORDS.len() {
        let (first, second) = WORDS.split_at(cut);
        let at = |sequence: usize, text: &str| {
            let sequence = u32::try_from(sequence).unwrap();
            tcp((CLIENT, 20_000), (SERVER, 9000), (sequence, ACK), text.as_bytes())
        };
        // As two devices show it: each packet twice.
        let packets = [at(1, first), at(1, first), at(1 + cut, second), at(1 + cut, second)];
        let captured = captured(watch(&[SERVER], &[CANARY]), &packets);
        assert_eq!(captured.sightings.len(), 1, "cut at {cut}");
    }
}

#[test]
fn packets_between_nodes_are_unwrapped() {
    let inner = asks(WORDS);
    let geneve_with_options = [2, 0, 0x65, 0x58, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    for packet in [
        wrapped(&inner, 8472, &[8, 0, 0, 0, 0, 0, 0, 0]),
        wrapped(&inner, 4789, &[8, 0, 0, 0, 0, 0, 0, 0]),
        wrapped(&inner, 6081, &geneve_with_options),
    ] {
        let captured = captured(watch(&[CLIENT], &[CANARY]), &[packet]);
        assert_eq!(captured.sightings[0].destination.to_string(), "10.244.0.7:9000");
    }
}

/// Orders to agents have the canaries in them, and travel between others: nothing of them is in clear for that.
#[test]
fn what_others_say_of_a_canary_is_not_looked_at() {
    let order = tcp((NODE, 10_250), ([127, 0, 0, 1], 40_000), (1, ACK), WORDS.as_bytes());
    let others = tcp((NODE, 10_250), (STRANGER, 40_000), (1, ACK), WORDS.as_bytes());
    let captured = captured(watch(&[CLIENT, SERVER], &[CANARY]), &[order, others]);
    assert_eq!(captured, Captured::default());
}

/// A `ServerHello` that chooses these versions: the one of old and, if there is one, that of the extension.
fn server_hello(old: u16, chosen: Option<u16>) -> Vec<u8> {
    let extension: Vec<u8> =
        chosen.map(|it| [43, 2, it].map(u16::to_be_bytes).concat()).unwrap_or_default();
    let length = u16::try_from(extension.len()).unwrap().to_be_bytes();
    let body =
        [&old.to_be_bytes(), &[7; 32][..], &[2, 1, 1], &[0x13, 0x02, 0], &length, &extension]
            .concat();
    let message = [&[2, 0, 0, u8::try_from(body.len()).unwrap()], &body[..]].concat();
    record(22, &message)
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind, 3, 3, high, low], body].concat()
}

/// A tunnel in pieces of at most so many bytes, from its first packet on or not.
fn tunnel(opened: bool, says: &[u8], answers: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let (client, server) = ((CLIENT, 62_000), (SERVER, HBONE));
    let mut packets = Vec::new();
    for (from, to, text) in [(client, server, says), (server, client, answers)] {
        if opened {
            packets.push(tcp(from, to, (u32::MAX - 1, SYN), &[]));
        }
        let mut sequence = u32::MAX;
        for piece in text.chunks(piece) {
            packets.push(tcp(from, to, (sequence, ACK), piece));
            sequence = sequence.wrapping_add(u32::try_from(piece.len()).unwrap());
        }
    }
    packets
}

fn speaks(packets: &[Vec<u8>]) -> Speaks {
    let captured = captured(watch(&[CLIENT, SERVER], &[]), packets);
    let [tunnel] = captured.tunnels.as_slice() else { panic!("{captured:?}") };
    tunnel.speaks
}

#[test]
fn a_tunnel_speaks_the_version_that_its_server_chooses() {
    let says = [record(22, &[1, 0, 0, 1, 0]), record(23, &[9; 300])].concat();
    for (old, chosen, told) in [
        (0x0303, Some(0x0304), Speaks::Tls13),
        (0x0303, None, Speaks::OtherTls { version: 0x0303 }),
        (0x0301, None, Speaks::OtherTls { version: 0x0301 }),
    ] {
        let answers = [server_hello(old, chosen), record(20, &[1]), record(23, &[9; 200])];
        for piece in [1, 7, 64, 4096] {
            let packets = tunnel(true, &says, &answers.concat(), piece);
            assert_eq!(speaks(&packets), told, "in pieces of {piece}");
            // A packet that passes several devices is seen several times.
            let twice: Vec<_> = packets.iter().flat_map(|it| [it.clone(), it.clone()]).collect();
            assert_eq!(speaks(&twice), told, "twice, in pieces of {piece}");
        }
    }
}

#[test]
fn a_tunnel_in_clear_speaks_no_tls() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    assert_eq!(speaks(&tunnel(true, preface, b"\0\0\0\x04\0\0\0\0\0", 1000)), Speaks::NotTls);
    // Of one that was opened before, nobody knows where in a record it was.
    assert_eq!(speaks(&tunnel(false, &preface[24..], b"", 1000)), Speaks::Unclear);
}

#[test]
fn a_tunnel_that_was_opened_before_is_known_by_its_records_alone() {
    let both = [record(23, &[9; 100]), record(23, &[8; 50])].concat();
    assert_eq!(speaks(&tunnel(false, &both, &both, 33)), Speaks::TlsUnderWay);
    assert_eq!(speaks(&tunnel(true, b"", b"", 33)), Speaks::Nothing);
}

#[test]
fn a_tunnel_with_a_packet_missing_is_not_said_to_be_anything() {
    let both = [record(23, &[9; 100]), record(23, &[8; 50])].concat();
    let mut packets = tunnel(false, &both, &both, 33);
    drop(packets.remove(1));
    assert_eq!(speaks(&packets), Speaks::Unclear);
}

/// Runs a program as the kernel does; how much of a packet passes.
fn filtered(program: &[Instruction], packet: &[u8]) -> u32 {
    let byte = |at: u32| packet.get(at as usize).copied().map(u32::from);
    let half = |at: u32| Some(byte(at)? << 8 | byte(at + 1)?);
    let word = |at: u32| Some(half(at)? << 16 | half(at + 2)?);
    let (mut accumulator, mut index, mut at) = (0, 0, 0);
    loop {
        let Instruction { code, then, otherwise, operand } = program[at];
        at += 1;
        let loaded = match code {
            filter::LOAD_BYTE => byte(operand),
            filter::LOAD_HALF => half(operand),
            filter::LOAD_WORD => word(operand),
            filter::LOAD_HALF_BEHIND => half(index + operand),
            filter::LOAD_HEADER_LENGTH => {
                index = byte(operand).map_or(0, |it| (it & 0x0f) * 4);
                continue;
            }
            filter::AND => Some(accumulator & operand),
            filter::JUMP_IF_EQUAL | filter::JUMP_IF_ANY_BIT => {
                let holds = match code {
                    filter::JUMP_IF_EQUAL => accumulator == operand,
                    _ => accumulator & operand != 0,
                };
                at += usize::from(if holds { then } else { otherwise });
                continue;
            }
            filter::RETURN => return operand,
            other => panic!("{other:#x} is no operation of these programs"),
        };
        // A packet that is too short is dropped.
        let Some(loaded) = loaded else { return 0 };
        accumulator = loaded;
    }
}

#[test]
fn the_filter_drops_what_is_nobodys_of_the_watched() {
    let addresses = watch(&[CLIENT, SERVER], &[]).addresses;
    let program = instructions(&addresses).unwrap();
    let passes = |packet: &[u8]| filtered(&program, packet) > 0;
    assert!(passes(&asks("a")) && passes(&wrapped(&asks("a"), 8472, &[0; 8])));
    assert!(!passes(&udp((NODE, 1), (STRANGER, 53), b"a")));
    assert!(!passes(&tcp((NODE, 1), (STRANGER, 8472), (1, ACK), b"a")));
    assert!(!passes(&[]) && !passes(&[0, 1, 8, 0]));
    let many: BTreeSet<IpAddr> = (0..200).map(|it| Ipv4Addr::from_bits(it).into()).collect();
    assert_eq!(instructions(&many), None);
}

fn address() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![Just(CLIENT), Just(SERVER), Just(STRANGER), Just(NODE)]
}

proptest! {
    /// What the sieve would look at is never lost to the filter.
    #[test]
    fn the_filter_passes_whatever_is_looked_at(
        source in address(), destination in address(), other in any::<[u8; 4]>(),
        protocol in prop_oneof![Just(6_u8), Just(17), Just(1)],
        payload in prop::collection::vec(any::<u8>(), 20..60), port in prop_oneof![Just(8472_u16), Just(9)],
        wrap in any::<bool>(),
    ) {
        let packet = ipv4(source, destination, protocol, &payload);
        let packet = if wrap { wrapped(&packet, port, &[0; 8]) } else { packet };
        let watch = watch(&[CLIENT, SERVER, other], &[]);
        let program = instructions(&watch.addresses).unwrap();
        let looked_at = captured(watch, &[&packet]).packets > 0;
        prop_assert!(!looked_at || filtered(&program, &packet) > 0);
    }

    /// Nothing that may come panics.
    #[test]
    fn any_bytes_are_looked_at(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6)) {
        captured(watch(&[CLIENT, [0; 4]], &[CANARY]), &packets);
    }
}

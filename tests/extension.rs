//! The extension handshake: what goes out, what comes in, and what strangers may not make of it.

use std::net::IpAddr;

use btfs::proto::wire::extension::{
    Extension, ExtensionHandshake, ExtensionIds, MAX_METADATA_LEN, encode_dont_have,
    encode_upload_only, parse_dont_have, parse_upload_only,
};
use proptest::prelude::*;

fn full() -> ExtensionHandshake {
    ExtensionHandshake {
        ids: ExtensionIds::local(&[Extension::Metadata, Extension::DontHave]),
        port: Some(6881),
        client: Some("btfs 1".into()),
        requests: Some(500),
        your_ip: Some(IpAddr::from([1, 2, 3, 4])),
        metadata_len: Some(1000),
        upload_only: Some(true),
    }
}

#[test]
fn a_handshake_has_its_bytes_both_ways() {
    let bytes =
        b"d1:md11:lt_donthavei3e11:ut_metadatai2ee13:metadata_sizei1000e1:pi6881e4:reqqi500e\
        11:upload_onlyi1e1:v6:btfs 16:yourip4:\x01\x02\x03\x04e";
    assert_eq!(full().encode().escape_ascii().to_string(), bytes.escape_ascii().to_string());
    assert_eq!(ExtensionHandshake::parse(bytes), Ok(full()));
    let nothing = ExtensionHandshake::default();
    assert_eq!(nothing.encode(), "d1:mdee");
    assert_eq!(ExtensionHandshake::parse(b"d1:mdee"), Ok(nothing.clone()));
    assert_eq!(ExtensionHandshake::parse(b"de"), Ok(nothing));
}

#[test]
fn numbers_are_found_both_ways() {
    for extension in [
        Extension::Pex,
        Extension::Metadata,
        Extension::DontHave,
        Extension::UploadOnly,
        Extension::Holepunch,
    ] {
        let id = ExtensionIds::local(&[extension]).of(extension).unwrap();
        assert_eq!(Extension::from_local_id(id), Some(extension));
        assert_eq!(ExtensionIds::local(&[]).of(extension), None);
    }
    assert_eq!(Extension::from_local_id(0), None);
    assert_eq!(Extension::from_local_id(99), None);
}

#[test]
fn what_is_out_of_bounds_counts_as_not_sent() {
    let largest = format!("d13:metadata_sizei{MAX_METADATA_LEN}ee");
    let too_large = format!("d13:metadata_sizei{}ee", MAX_METADATA_LEN + 1);
    let nothing = ExtensionHandshake::default;
    for (input, expected) in [
        ("d1:pi0ee", nothing()),
        ("d1:pi65536ee", nothing()),
        ("d1:pi-1ee", nothing()),
        ("d1:p4:6881e", nothing()),
        ("d1:mi5ee", nothing()),
        ("d1:mlee", nothing()),
        ("d1:md6:ut_pexi256eee", nothing()),
        ("d1:md6:ut_pexi-1eee", nothing()),
        ("d1:md6:ut_pexi0eee", nothing()),
        ("d6:yourip3:abce", nothing()),
        ("d13:metadata_sizei0ee", nothing()),
        (&too_large, nothing()),
        (&largest, ExtensionHandshake { metadata_len: Some(MAX_METADATA_LEN), ..nothing() }),
        ("d4:reqqi0ee", ExtensionHandshake { requests: Some(1), ..nothing() }),
        ("d4:reqqi-5ee", ExtensionHandshake { requests: Some(1), ..nothing() }),
        ("d4:reqqi70000ee", ExtensionHandshake { requests: Some(u16::MAX), ..nothing() }),
        ("d1:v5:a\nb\u{1b}ce", ExtensionHandshake { client: Some("abc".into()), ..nothing() }),
        (
            "d6:yourip16:\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01e",
            ExtensionHandshake { your_ip: Some("::1".parse().unwrap()), ..nothing() },
        ),
        ("d4:ipv44:abcd4:ipv616:abcdefghijklmnope", nothing()),
    ] {
        assert_eq!(ExtensionHandshake::parse(input.as_bytes()), Ok(expected), "{input:?}");
    }
}

#[test]
fn a_mapped_address_is_its_ipv4_address() {
    let mapped = b"d6:yourip16:\0\0\0\0\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04e";
    let told = ExtensionHandshake::parse(mapped).unwrap();
    assert_eq!(told.your_ip, Some(IpAddr::from([1, 2, 3, 4])));
}

#[test]
fn a_client_name_is_cut() {
    let told = ExtensionHandshake::parse(format!("d1:v1000:{}e", "x".repeat(1000)).as_bytes());
    assert_eq!(told.unwrap().client.unwrap().len(), 64);
}

#[test]
fn what_is_no_dictionary_is_refused() {
    for input in ["", "d", "i1e", "le", "4:spam", "d1:pi1ee ", "d1:pi1e1:pi1ee"] {
        assert!(ExtensionHandshake::parse(input.as_bytes()).is_err(), "{input:?}");
    }
    assert!(ExtensionHandshake::parse(&b"l".repeat(100_000)).is_err());
}

#[test]
fn a_second_handshake_changes_only_what_it_names() {
    let mut told = full();
    told.update(b"d1:md11:lt_donthavei0e6:ut_pexi9ee11:upload_onlyi0ee").unwrap();
    assert_eq!(told.ids.of(Extension::DontHave), None);
    assert_eq!(told.ids.of(Extension::Pex), Some(9));
    assert_eq!(told.ids.of(Extension::Metadata), Some(2));
    assert_eq!((told.upload_only, told.port, told.requests), (Some(false), Some(6881), Some(500)));
}

#[test]
fn dont_have_is_four_bytes() {
    assert_eq!(encode_dont_have(0x0102_0304), [1, 2, 3, 4].as_slice());
    for (payload, expected) in [
        (b"\0\0\x01\0".as_slice(), Some(256)),
        (b"\0\0\x01", None),
        (b"\0\0\0\x01\0", None),
        (b"", None),
    ] {
        assert_eq!(parse_dont_have(payload), expected, "{payload:?}");
    }
}

#[test]
fn upload_only_is_one_byte() {
    for (payload, expected) in
        [(b"\0".as_slice(), Some(false)), (b"\x01", Some(true)), (b"\0\0", None), (b"", None)]
    {
        assert_eq!(parse_upload_only(payload), expected, "{payload:?}");
    }
    assert_eq!(encode_upload_only(true), [1].as_slice());
    let told = ExtensionHandshake { upload_only: Some(false), ..ExtensionHandshake::default() };
    assert_eq!(told.encode(), "d1:mde11:upload_onlyi0ee");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read(
        spoken in any::<[bool; 4]>(),
        port in prop::option::of(1..=u16::MAX),
        client in prop::option::of("[a-z0-9. ]{0,64}"),
        requests in prop::option::of(1..=u16::MAX),
        your_ip in prop::option::of(any::<[u8; 4]>()),
        metadata_len in prop::option::of(1..=MAX_METADATA_LEN),
        upload_only in prop::option::of(any::<bool>()),
    ) {
        let all =
            [Extension::Pex, Extension::Metadata, Extension::DontHave, Extension::UploadOnly];
        let spoken: Vec<_> = all.into_iter().zip(spoken).filter(|pair| pair.1).map(|pair| pair.0).collect();
        let told = ExtensionHandshake {
            ids: ExtensionIds::local(&spoken),
            port, client, requests, your_ip: your_ip.map(IpAddr::from), metadata_len, upload_only,
        };
        prop_assert_eq!(ExtensionHandshake::parse(&told.encode()), Ok(told));
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ExtensionHandshake::parse(&noise);
    }

    #[test]
    fn a_damaged_handshake_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = full().encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(told) = ExtensionHandshake::parse(&bytes) {
            prop_assert!(told.metadata_len.is_none_or(|len| len <= MAX_METADATA_LEN));
        }
    }
}

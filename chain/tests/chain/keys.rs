//! Keys and signatures, held against an independent implementation (ethers).

use std::os::unix::fs::PermissionsExt;

use chain::{Key, OfferDomain, recover};
use common::ids::{Address, OfferHash};
use ethers_core::types::{Signature, transaction::eip712::TypedData};
use ethers_signers::{LocalWallet, Signer};
use proptest::prelude::*;
use serde_json::Value;

use crate::offers::{any_developer_offer, any_provider_offer, developer_offer, provider_offer};

const DOMAIN: OfferDomain = OfferDomain { chain_id: 31_337, market: Address([9; 20]) };

proptest! {
    #[test]
    fn whoever_signed_is_recovered(hash in any::<[u8; 32]>(), secret in any::<[u8; 32]>()) {
        let Ok(key) = Key::from_hex(&hex(&secret)) else { return Ok(()) };
        let signature = key.sign(OfferHash(hash)).unwrap();
        prop_assert_eq!(signature.len(), 65);
        prop_assert_eq!(recover(OfferHash(hash), &signature), Some(key.address()));
    }

    #[test]
    fn no_signature_makes_recovery_panic(hash in any::<[u8; 32]>(), signature in prop::collection::vec(any::<u8>(), 0..70)) {
        let _ = recover(OfferHash(hash), &signature);
    }

    #[test]
    fn ethers_reads_our_documents_as_the_same_hash(
        developer in any_developer_offer(),
        provider in any_provider_offer(),
    ) {
        use ethers_core::types::transaction::eip712::Eip712;
        let document = for_ethers(DOMAIN.typed_data(&developer));
        prop_assert_eq!(document.encode_eip712().unwrap(), DOMAIN.developer_offer_hash(&developer).0);
        let document = for_ethers(DOMAIN.provider_typed_data(&provider));
        prop_assert_eq!(document.encode_eip712().unwrap(), DOMAIN.provider_offer_hash(&provider).0);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The document as ethers reads it right. EIP-712 pads `bytes8` with zeros behind it; ethers 2.0.14 puts them before it,
/// so it is handed the padded word. The types stay as they are.
fn for_ethers(mut document: Value) -> TypedData {
    let pad = |region: &mut Value| *region = format!("{:0<66}", region.as_str().unwrap()).into();
    let message = document["message"].as_object_mut().unwrap();
    message.get_mut("region").into_iter().for_each(pad);
    message.get_mut("regions").and_then(Value::as_array_mut).into_iter().flatten().for_each(pad);
    serde_json::from_value(document).unwrap()
}

#[tokio::test]
async fn signatures_agree_with_ethers_both_ways() {
    let theirs: LocalWallet = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318".parse().unwrap();
    let ours = Key::from_hex("0x4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318").unwrap();
    assert_eq!(ours.address(), Address(theirs.address().0));
    let offer = developer_offer(ours.address());
    let hash = DOMAIN.developer_offer_hash(&offer);

    let document = for_ethers(DOMAIN.typed_data(&offer));
    let their_signature = theirs.sign_typed_data(&document).await.unwrap().to_vec();
    assert_eq!(recover(hash, &their_signature), Some(ours.address()));

    let our_signature = Signature::try_from(ours.sign(hash).unwrap().as_slice()).unwrap();
    assert_eq!(our_signature.recover(hash.0).unwrap(), theirs.address());
    assert_eq!(our_signature.to_vec(), their_signature, "both are deterministic (RFC 6979)");
}

#[test]
fn keystores_agree_with_ethers_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Key::random();
    let path = folder.path().join("our.json");
    ours.save_keystore(&path, "correct horse").unwrap();
    let theirs = LocalWallet::decrypt_keystore(&path, "correct horse").unwrap();
    assert_eq!(Address(theirs.address().0), ours.address());

    let (theirs, name) =
        LocalWallet::new_keystore(folder.path(), &mut ethers_core::rand::thread_rng(), "battery", None).unwrap();
    let ours = Key::from_keystore(&folder.path().join(name), "battery").unwrap();
    assert_eq!(ours.address(), Address(theirs.address().0));
}

#[test]
fn keystores_are_private_and_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    for key in [Key::random(), Key::random()] {
        key.save_keystore(&path, "").unwrap();
        assert_eq!(Key::from_keystore(&path, "").unwrap().address(), key.address());
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    assert!(Key::from_keystore(&path, "wrong").unwrap_err().to_string().contains("key.json"));
}

#[test]
fn secrets_are_not_shown() {
    let secret = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
    let key = Key::from_hex(secret).unwrap();
    assert_eq!(format!("{key:?}"), format!("Key({})", key.address()));
    let mistyped = format!("{secret}zz");
    assert!(!Key::from_hex(&mistyped).unwrap_err().to_string().contains("4c08"));
}

#[test]
fn malleable_and_foreign_forms_of_a_signature_are_refused() {
    let key = Key::random();
    let hash = DOMAIN.provider_offer_hash(&provider_offer(key.address()));
    let signature = key.sign(hash).unwrap();
    // n - s is a second signature for whoever does not look.
    let order = ethers_core::types::U256::from_str_radix(
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
        16,
    );
    let mut mirrored = signature.clone();
    let s = order.unwrap() - ethers_core::types::U256::from_big_endian(&signature[32..64]);
    s.to_big_endian(&mut mirrored[32..64]);
    mirrored[64] = 55 - signature[64];
    assert_eq!(recover(hash, &mirrored), None);
    // The chain takes 27 and 28 only.
    let mut short_v = signature.clone();
    short_v[64] -= 27;
    assert_eq!(recover(hash, &short_v), None);
    assert_eq!(recover(hash, &signature[..64]), None);
    assert_eq!(recover(hash, &signature), Some(key.address()));
}

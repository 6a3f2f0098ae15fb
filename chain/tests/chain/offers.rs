//! Offers to test with: plain ones and arbitrary ones.

use common::{
    feature::FeatureSet,
    ids::{Address, Digest},
    money::Atoms,
    offer::{DeveloperOffer, ProviderOffer},
    region::Region,
    resources::{Prices, Resources},
};
use proptest::{collection::vec, prelude::*};

pub(crate) fn atoms(amount: u64) -> Atoms {
    Atoms::new(amount).unwrap()
}

/// 10,000 atoms for a CPU and 5,000 for a GiB.
pub(crate) fn provider_offer(provider: Address) -> ProviderOffer {
    ProviderOffer {
        provider,
        agent: provider,
        payout: provider,
        region: "eu-de-fra1".parse().unwrap(),
        capacity: Resources { milli_cpu: 4_000, memory_mib: 8_192 },
        features: FeatureSet(0b11),
        prices: Prices { per_vcpu_epoch: atoms(10_000), per_gib_epoch: atoms(5_000) },
        max_epochs: 0,
        valid_until: u64::from(u32::MAX),
        nonce: 1,
        endpoint: "http://127.0.0.1:7000".to_owned(),
    }
}

/// One replica of half a CPU and half a GiB, for 10 epochs of which 2 are prepaid.
pub(crate) fn developer_offer(developer: Address) -> DeveloperOffer {
    DeveloperOffer {
        developer,
        artifact: Digest([7; 32]),
        manifest: Digest::ZERO,
        size: Resources { milli_cpu: 500, memory_mib: 512 },
        features: FeatureSet(0b01),
        regions: vec!["eu".parse().unwrap()],
        min_replicas: 1,
        replicas: 1,
        max_price_per_epoch: atoms(10_000),
        epochs: 10,
        prepaid_epochs: 2,
        valid_until: u64::from(u32::MAX),
        nonce: 1,
        matcher: Address::ZERO,
        matcher_fee: Atoms::ZERO,
        allow: Vec::new(),
        deny: Vec::new(),
        artifact_url: "http://127.0.0.1:7001/worker.wasm".to_owned(),
    }
}

pub(crate) fn any_address() -> impl Strategy<Value = Address> {
    any::<[u8; 20]>().prop_map(Address)
}

pub(crate) fn any_atoms() -> impl Strategy<Value = Atoms> {
    (0..=Atoms::MAX.get()).prop_map(atoms)
}

pub(crate) fn any_resources() -> impl Strategy<Value = Resources> {
    any::<(u32, u32)>().prop_map(|(milli_cpu, memory_mib)| Resources { milli_cpu, memory_mib })
}

fn any_region() -> impl Strategy<Value = Region> {
    prop::sample::select(vec!["eu", "eu-de", "eu-de-fra1", "na-us-e", "ap-jp-nrt", "sa"])
        .prop_map(|text| text.parse().unwrap())
}

prop_compose! {
    pub(crate) fn any_provider_offer()(
        (provider, agent, payout) in (any_address(), any_address(), any_address()),
        region in any_region(),
        capacity in any_resources(),
        per_vcpu_epoch in any_atoms(),
        per_gib_epoch in any_atoms(),
        (features, max_epochs, valid_until, nonce) in any::<(u64, u32, u64, u64)>(),
        endpoint in ".{0,80}",
    ) -> ProviderOffer {
        let features = FeatureSet(features);
        let prices = Prices { per_vcpu_epoch, per_gib_epoch };
        ProviderOffer { provider, agent, payout, region, capacity, features, prices, max_epochs, valid_until, nonce, endpoint }
    }
}

prop_compose! {
    pub(crate) fn any_developer_offer()(
        (developer, matcher) in (any_address(), any_address()),
        (artifact, manifest) in any::<([u8; 32], [u8; 32])>(),
        size in any_resources(),
        regions in vec(any_region(), 0..4),
        (max_price_per_epoch, matcher_fee) in (any_atoms(), any_atoms()),
        (min_replicas, replicas, epochs, prepaid_epochs) in any::<(u16, u16, u32, u32)>(),
        (features, valid_until, nonce) in any::<(u64, u64, u64)>(),
        (allow, deny) in (vec(any_address(), 0..4), vec(any_address(), 0..4)),
        artifact_url in ".{0,80}",
    ) -> DeveloperOffer {
        let (artifact, manifest, features) = (Digest(artifact), Digest(manifest), FeatureSet(features));
        DeveloperOffer {
            developer, artifact, manifest, size, features, regions, min_replicas, replicas, max_price_per_epoch, epochs,
            prepaid_epochs, valid_until, nonce, matcher, matcher_fee, allow, deny, artifact_url,
        }
    }
}

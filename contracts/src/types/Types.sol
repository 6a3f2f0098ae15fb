// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

/// @dev EIP-712 hash of a provider offer or of a developer offer. It is the offer's id.
type OfferHash is bytes32;

/// @dev `keccak256(abi.encode(developerOfferHash, provider))`: one replica of one developer offer at one provider.
type DealId is bytes32;

/// @dev Index of a billing period: `(timestamp - genesis) / epochLength`.
type Epoch is uint32;

/// @dev Place in ASCII, padded with zero bytes: two bytes of continent, two of country, four of site
/// (`eu`, `eu` `de`, `eu` `de` `fra1`). A shorter one is a prefix that contains the longer ones.
type Region is bytes8;

/// @dev What a provider sells. Amounts are atoms of the market's token.
struct ProviderOffer {
    /// Account that signs, whose free balance carries the bond.
    address provider;
    /// Hot key that attests. It can move no money.
    address agent;
    /// Account that every payment is credited to.
    address payout;
    /// Where the machine stands; at least continent and country.
    Region region;
    /// Capacity in thousandths of a CPU.
    uint32 milliCpu;
    /// Capacity in MiB.
    uint32 memoryMib;
    /// Bit set of host capabilities that are switched on.
    uint64 features;
    /// Price of 1,000 milli-CPU for one epoch.
    uint64 pricePerVcpuEpoch;
    /// Price of 1,024 MiB for one epoch.
    uint64 pricePerGibEpoch;
    /// Longest term of a deal in epochs; 0 for no limit.
    uint32 maxEpochs;
    /// Last second at which the offer may be matched.
    uint64 validUntil;
    /// Valid while not below the provider's nonce floor; makes equal offers distinct.
    uint64 nonce;
    /// Base URL of the agent's ingress.
    string endpoint;
}

/// @dev What a developer wants. Amounts are atoms of the market's token.
struct DeveloperOffer {
    /// Account that signs and pays.
    address developer;
    /// SHA-256 digest of the Wasm component.
    bytes32 artifact;
    /// SHA-256 digest of the manifest (environment, limits); 0 for none.
    bytes32 manifest;
    /// Per replica, in thousandths of a CPU.
    uint32 milliCpu;
    /// Per replica, in MiB.
    uint32 memoryMib;
    /// Bit set of host capabilities that the worker imports.
    uint64 features;
    /// Acceptable places (prefixes); empty for anywhere. At most 16.
    Region[] regions;
    /// Fewest replicas worth starting with.
    uint16 minReplicas;
    /// Replicas wanted, each at another provider. At most 100.
    uint16 replicas;
    /// Most that one replica may cost for one epoch.
    uint64 maxPricePerEpoch;
    /// Term in epochs, counted from the first match.
    uint32 epochs;
    /// Epochs locked ahead for each replica; at least the market's minimum, or the term when that is shorter.
    uint32 prepaidEpochs;
    /// Last second at which replicas may be placed.
    uint64 validUntil;
    /// Valid while not below the developer's nonce floor; makes equal offers distinct.
    uint64 nonce;
    /// Only this account may match the offer; 0 for anyone.
    address matcher;
    /// Providers that may host; empty for any. At most 32.
    address[] allow;
    /// Providers that may not host. At most 32.
    address[] deny;
    /// Where the artifact may be fetched: a hint, the digest is the truth. At most 512 bytes.
    string artifactUrl;
}

/// @dev Life of a deal; it only moves forward.
enum DealState {
    None,
    Active,
    Ending,
    Ended
}

/// @dev Why a deal ends before or at its term.
enum EndCause {
    None,
    TermOver,
    DeveloperCancelled,
    ProviderLeft,
    ProviderEvicted,
    Unfunded
}

/// @dev Why a match, a fill or a claim was passed over. Numbers are part of the interface: append only.
enum Reason {
    None,
    // The developer's side: the whole match is skipped.
    DeveloperOfferMalformed,
    DeveloperSignatureInvalid,
    DeveloperOfferCancelled,
    DeveloperNonceTooLow,
    DeveloperOfferExpired,
    MatcherNotNamed,
    TermOver,
    TooFewReplicas,
    // The provider's side: one fill is skipped.
    ReplicasFull,
    ProviderOfferMalformed,
    ProviderSignatureInvalid,
    ProviderOfferCancelled,
    ProviderNonceTooLow,
    ProviderOfferExpired,
    ProviderNotAllowed,
    ProviderDenied,
    AlreadyHosting,
    RegionMismatch,
    FeaturesMissing,
    TermTooLong,
    CpuExceedsFree,
    MemoryExceedsFree,
    PriceAboveMaximum,
    FundsTooLow,
    BondTooLow,
    // Claims and other batches.
    DealUnknown,
    DealAlreadyEnded
}

/// @dev One developer offer with the provider offers that shall host its replicas, in order of preference.
/// An empty signature stands for an offer that is posted, or that an earlier match has recorded.
struct Match {
    DeveloperOffer developerOffer;
    bytes developerSignature;
    ProviderOffer[] providerOffers;
    bytes[] providerSignatures;
}

/// @dev Everything about a deal, for readers.
struct DealView {
    OfferHash developerOffer;
    OfferHash providerOffer;
    address developer;
    address provider;
    address agent;
    address payout;
    uint32 milliCpu;
    uint32 memoryMib;
    /// The provider's ask for this replica, in atoms.
    uint64 pricePerEpoch;
    /// First billed epoch.
    Epoch startEpoch;
    /// First epoch that is no longer billed.
    Epoch endEpoch;
    /// Epochs before this one are settled.
    Epoch settledUntil;
    /// First epoch that the locked money does not cover.
    Epoch paidUntil;
    /// Atoms locked for this deal.
    uint64 locked;
    /// Atoms of the provider's bond.
    uint64 bond;
    /// First epoch that was recorded as unfunded; 0 while funded.
    Epoch unfundedSince;
    DealState state;
    EndCause cause;
}

/// @dev The market's constants, fixed at deployment.
struct MarketConfig {
    /// ERC-20 that everything is paid in.
    address token;
    /// May pause new matches, nothing else.
    address operator;
    /// Seconds.
    uint32 epochLength;
    /// An epoch can be attested during this many epochs after it. 1 to 16.
    uint32 attestationWindow;
    /// Consecutive missed epochs after which anyone may evict.
    uint32 evictAfterMissed;
    /// Bond in epochs of the deal's price.
    uint32 bondEpochs;
    /// Least `prepaidEpochs` of a developer offer.
    uint32 minPrepaidEpochs;
    /// Epochs that an unfunded deal may stay open.
    uint32 graceEpochs;
    /// Epochs between a provider's notice and the deal's end.
    uint32 noticeEpochs;
}

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
    /// Hot key that attests. It can move no money to itself or to anybody of its choice.
    address agent;
    /// Account that every payment is credited to. The provider's own costs nothing; another one is stored, which
    /// costs one word when the offer becomes known and one read in each claim.
    address payout;
    /// Where the machine stands; at least continent and country.
    Region region;
    /// Capacity in thousandths of a CPU, below 2^30.
    uint32 milliCpu;
    /// Capacity in MiB, below 2^30.
    uint32 memoryMib;
    /// Bit set of host capabilities that are switched on.
    uint64 features;
    /// Price of 1,000 milli-CPU for one epoch, below 2^63.
    uint64 pricePerVcpuEpoch;
    /// Price of 1,024 MiB for one epoch, below 2^63.
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
    /// Per replica, in thousandths of a CPU, below 2^20.
    uint32 milliCpu;
    /// Per replica, in MiB, below 2^20.
    uint32 memoryMib;
    /// Bit set of host capabilities that the worker imports.
    uint64 features;
    /// Acceptable places (prefixes); empty for anywhere. At most 16.
    Region[] regions;
    /// Fewest replicas worth starting with.
    uint16 minReplicas;
    /// Replicas wanted, each at another provider. At most 100.
    uint16 replicas;
    /// Most that one replica may cost for one epoch, below 2^48.
    uint64 maxPricePerEpoch;
    /// Term in epochs, counted from the first match.
    uint32 epochs;
    /// Epochs locked ahead for each replica, below 2^16; at least the market's minimum, or the term when that is
    /// shorter.
    uint32 prepaidEpochs;
    /// Last second at which replicas may be placed.
    uint64 validUntil;
    /// Valid while not below the developer's nonce floor; makes equal offers distinct.
    uint64 nonce;
    /// Only this account may match the offer; 0 for anyone.
    address matcher;
    /// Paid for each replica placed, to the account that sends the match.
    uint64 matcherFee;
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
    Unfunded,
    ProviderSlashed
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
    DealAlreadyEnded,
    ProviderOfferMismatch
}

/// @dev A provider offer that shall host a replica. An empty signature stands for an offer that is posted, or that an
/// earlier match has recorded.
struct Fill {
    ProviderOffer offer;
    bytes signature;
}

/// @dev One developer offer with the provider offers that shall host its replicas, in order of preference. An empty
/// signature is as above.
struct Match {
    DeveloperOffer developerOffer;
    bytes developerSignature;
    Fill[] fills;
}

/// @dev Names a deal together with what it was made of. Its id follows from the first two, which prove each other; that
/// the third belongs to it is checked wherever a reference is taken.
struct DealRef {
    OfferHash developerOffer;
    address provider;
    OfferHash providerOffer;
}

/// @dev New terms of a deal from the next epoch on. Both sides sign it (EIP-712).
struct DealChange {
    DealId dealId;
    /// 1 for the first change of a deal, then counted up: a change can't be carried out twice or out of order.
    uint32 sequence;
    /// First epoch that is no longer billed.
    uint32 endEpoch;
    /// New size, in thousandths of a CPU and in MiB, each below 2^20.
    uint32 milliCpu;
    uint32 memoryMib;
    /// New price of one epoch, below 2^48.
    uint64 pricePerEpoch;
    /// Last second at which the change may be carried out.
    uint64 validUntil;
}

/// @dev Another artifact for all replicas of a developer offer. The developer signs it (EIP-712).
struct ArtifactUpdate {
    OfferHash developerOffer;
    /// 1 for the first update of an offer, then counted up: an old update can't be brought back.
    uint32 version;
    /// SHA-256 digest of the Wasm component.
    bytes32 artifact;
    /// SHA-256 digest of the manifest; 0 for none.
    bytes32 manifest;
    /// Last second at which the update may be carried out.
    uint64 validUntil;
    /// Where the artifact may be fetched. At most 512 bytes.
    string artifactUrl;
}

/// @dev An agent's record of one execution (EIP-712), as far as the chain needs to know it.
struct Receipt {
    DealId dealId;
    /// Counts the executions of a deal. Two receipts of one number that differ are proof of fraud.
    uint64 sequence;
    /// Digest of everything else that the agent says about the execution.
    bytes32 content;
}

/// @dev Everything about a deal, for readers.
struct DealView {
    DealId dealId;
    OfferHash developerOffer;
    OfferHash providerOffer;
    address developer;
    address provider;
    address agent;
    address payout;
    uint32 milliCpu;
    uint32 memoryMib;
    /// Price of one epoch, in atoms, from `priceFrom` on.
    uint64 pricePerEpoch;
    /// Epochs before this one cost `oldPricePerEpoch`; 0 when the price was never changed.
    Epoch priceFrom;
    uint64 oldPricePerEpoch;
    /// Changes that were carried out.
    uint32 changes;
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

/// @dev What the chain keeps of a developer offer, for readers.
struct DeveloperOfferView {
    /// 0 while the chain does not know the offer.
    address developer;
    /// Replicas that have a host now.
    uint16 liveReplicas;
    /// First epoch after the term; 0 before the first match.
    Epoch endEpoch;
    uint32 prepaidEpochs;
    uint32 milliCpu;
    uint32 memoryMib;
    /// Updates of the artifact that were carried out. With none, artifact and manifest are the offer's, shown as 0.
    uint32 version;
    bytes32 artifact;
    bytes32 manifest;
}

/// @dev What the chain keeps of a provider offer, for readers.
struct ProviderOfferView {
    /// 0 while the chain does not know the offer.
    address agent;
    address payout;
    /// Capacity that deals hold now.
    uint32 usedMilliCpu;
    uint32 usedMemoryMib;
    bool cancelled;
}

/// @dev What the chain keeps of an account, for readers.
struct AccountView {
    /// Atoms that are neither locked nor bonded.
    uint256 free;
    /// Offers with a smaller nonce are void.
    uint64 nonceFloor;
    /// Rolling hash of the receipt roots that the account has attested as an agent.
    bytes32 receiptsHash;
}

/// @dev The market's constants, fixed at deployment.
struct MarketConfig {
    /// ERC-20 that everything is paid in.
    address token;
    /// May pause new matches, nothing else.
    address operator;
    /// Second at which epoch 0 begins; not in the future.
    uint64 genesis;
    /// Seconds.
    uint32 epochLength;
    /// An epoch can be attested during this many epochs after it. 1 to 16.
    uint32 attestationWindow;
    /// Consecutive missed epochs after which anyone may evict. 1 to 200.
    uint32 evictAfterMissed;
    /// Bond in epochs of the deal's price. At most 10,000.
    uint32 bondEpochs;
    /// Least `prepaidEpochs` of a developer offer. 1 to 65,535.
    uint32 minPrepaidEpochs;
    /// Epochs that an unfunded deal may stay open.
    uint32 graceEpochs;
    /// Epochs between a provider's notice and the deal's end.
    uint32 noticeEpochs;
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {
    DealId,
    DealView,
    DeveloperOffer,
    EndCause,
    Epoch,
    MarketConfig,
    Match,
    OfferHash,
    ProviderOffer,
    Reason
} from "../types/Types.sol";

/// @title Market
/// @notice Escrow, offer book, deals, attestations and bonds of the Wharfage market.
/// Every amount is in atoms of the market's token. Free balances stay below 2^63 atoms.
interface IMarket {
    // --- Escrow -------------------------------------------------------------------------------------------------

    /// @notice `amount` atoms arrived for `account`, paid by `from`.
    event Deposited(address indexed account, address indexed from, uint256 amount);
    /// @notice `account` took `amount` atoms out, to `to`.
    event Withdrawn(address indexed account, address indexed to, uint256 amount);

    error ZeroAmount();
    error ZeroAddress();
    error BalanceTooLow(uint256 free, uint256 needed);
    error BalanceTooLarge(uint256 wanted);
    error TokenTransferFailed();
    error InvalidRecipient(address to);

    /// @notice Credits the caller with what arrives of `amount`.
    function deposit(uint256 amount) external;
    /// @notice Credits `account` with what arrives of `amount`, paid by the caller.
    function depositFor(address account, uint256 amount) external;
    /// @notice Credits `owner` from the owner's tokens by an EIP-2612 permit; anyone may relay it.
    function depositWithPermit(address owner, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;
    /// @notice Credits `from` by an EIP-3009 authorization to receive; anyone may relay it.
    function depositWithAuthorization(
        address from,
        uint256 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external;
    /// @notice Pays `amount` of the caller's free balance out to `to`.
    function withdraw(uint256 amount, address to) external;
    /// @notice Atoms of `account` that are neither locked nor bonded.
    function freeBalance(address account) external view returns (uint256);

    // --- Offers -------------------------------------------------------------------------------------------------

    /// @notice A provider offer became known to the chain: posted, or used in a match for the first time.
    event ProviderOfferOpened(OfferHash indexed offerHash, address indexed provider, ProviderOffer offer);
    /// @notice A developer offer became known to the chain: posted, or matched for the first time.
    event DeveloperOfferOpened(OfferHash indexed offerHash, address indexed developer, DeveloperOffer offer);
    /// @notice `owner` will accept no further match of this offer.
    event OfferCancelled(address indexed owner, OfferHash indexed offerHash);
    /// @notice Offers of `owner` with a smaller nonce are void.
    event NonceFloorRaised(address indexed owner, uint64 floor);

    error NotOfferOwner(address owner, address caller);
    error OfferMalformed(Reason reason);
    error OfferAlreadyOpened(OfferHash offerHash);
    error OfferVoid(OfferHash offerHash, Reason reason);
    error NonceFloorNotRaised(uint64 floor, uint64 wanted);

    /// @notice Posts the caller's provider offer; no signature is needed for it afterwards.
    function postProviderOffer(ProviderOffer calldata offer) external returns (OfferHash);
    /// @notice Posts the caller's developer offer; no signature is needed for it afterwards.
    function postDeveloperOffer(DeveloperOffer calldata offer) external returns (OfferHash);
    /// @notice Voids one of the caller's offers, seen by the chain or not. Its deals go on.
    function cancelOffer(OfferHash offerHash) external;
    /// @notice Voids all of the caller's offers with a nonce below `floor`. Their deals go on.
    function raiseNonceFloor(uint64 floor) external;
    function hashProviderOffer(ProviderOffer calldata offer) external view returns (OfferHash);
    function hashDeveloperOffer(DeveloperOffer calldata offer) external view returns (OfferHash);
    function isCancelled(address owner, OfferHash offerHash) external view returns (bool);
    function nonceFloor(address owner) external view returns (uint64);
    /// @notice Capacity of a provider offer that deals hold now.
    function usedCapacity(OfferHash providerOffer) external view returns (uint64 milliCpu, uint64 memoryMib);
    /// @notice Replicas that live now, and the first epoch after the term (0 before the first match).
    function placement(OfferHash developerOffer) external view returns (uint16 liveReplicas, Epoch endEpoch);

    // --- Matching -----------------------------------------------------------------------------------------------

    /// @notice A replica has a host. `locked` came from the developer's, `bond` from the provider's free balance.
    event DealOpened(
        DealId indexed dealId,
        OfferHash indexed developerOffer,
        address indexed agent,
        OfferHash providerOffer,
        address developer,
        address provider,
        uint64 pricePerEpoch,
        Epoch startEpoch,
        Epoch endEpoch,
        uint64 locked,
        uint64 bond
    );
    /// @notice A developer offer was passed over as a whole.
    event MatchSkipped(OfferHash indexed developerOffer, Reason reason);
    /// @notice One provider offer was passed over.
    event FillSkipped(OfferHash indexed developerOffer, OfferHash indexed providerOffer, Reason reason);
    event MatchingPaused(bool paused);

    error MatchingIsPaused();
    error NotOperator(address caller);
    error LengthMismatch();

    /// @notice Opens deals. Whatever fails its check is skipped with an event and harms none of its neighbours.
    /// @return opened Number of deals opened.
    function matchOffers(Match[] calldata matches) external returns (uint256 opened);
    /// @notice What a fill by `providerOffer` would be refused for now, signatures and `minReplicas` apart.
    function checkFill(DeveloperOffer calldata developerOffer, ProviderOffer calldata providerOffer)
        external
        view
        returns (Reason);
    /// @notice The operator stops or resumes new matches. No exit is ever blocked.
    function setMatchingPaused(bool paused) external;
    function matchingPaused() external view returns (bool);

    // --- Deals --------------------------------------------------------------------------------------------------

    /// @notice `from` added `amount` to the deal's lock.
    event DealFunded(DealId indexed dealId, address indexed from, uint64 amount, Epoch paidUntil);
    /// @notice `epochsPaid` epochs were paid to the payout account; `toppedUp` came from the developer's free balance.
    event DealSettled(
        DealId indexed dealId,
        address indexed payout,
        uint32 epochsPaid,
        uint64 paid,
        uint64 toppedUp,
        Epoch settledUntil,
        Epoch paidUntil
    );
    /// @notice The money ended: epochs from `since` on are not paid until somebody funds the deal. Said again after each
    /// `DealSettled` and `DealFunded` during which it stays so; without it, those two mean that the deal is funded.
    event DealUnfunded(DealId indexed dealId, Epoch since);
    /// @notice The deal will end at `endEpoch`; `refunded` went back to the developer at once.
    event DealEnding(DealId indexed dealId, EndCause cause, Epoch endEpoch, uint64 refunded);
    /// @notice The deal is over; what was locked went to the developer, the bond to `bondTo`.
    event DealEnded(DealId indexed dealId, EndCause cause, uint64 refunded, address bondTo, uint64 bond);
    event ClaimSkipped(DealId indexed dealId, Reason reason);

    error DealNotOpen(DealId dealId);
    error NotDeveloper(DealId dealId, address caller);
    error NotProvider(DealId dealId, address caller);
    error NotYetOver(DealId dealId, Epoch closableFrom);
    error NotEvictable(DealId dealId);

    /// @notice Adds `amount` of the caller's free balance to a deal's lock. A deal that was unfunded goes on with
    /// the next epoch; what it missed is never charged.
    function fundDeal(DealId dealId, uint64 amount) external;
    /// @notice Pays attested epochs of many deals to their payout accounts and tops their locks up. Anyone may call.
    /// @return paid Atoms paid in total.
    function claim(DealId[] calldata dealIds) external returns (uint256 paid);
    /// @notice Developer: end deals at the next epoch boundary; money for later epochs returns at once.
    function cancelDeals(DealId[] calldata dealIds) external;
    /// @notice Provider or its agent: end deals after the notice period. The bond returns when they end well.
    function giveNotice(DealId[] calldata dealIds) external;
    /// @notice Ends a deal whose provider missed too many epochs in a row; the bond goes to the developer.
    function evict(DealId dealId) external;
    /// @notice Ends a deal whose term is over and attestable no more, or that stayed unfunded beyond grace.
    function closeDeal(DealId dealId) external;
    function dealIdOf(OfferHash developerOffer, address provider) external pure returns (DealId);
    function deal(DealId dealId) external view returns (DealView memory);

    // --- Attestations -------------------------------------------------------------------------------------------

    /// @notice `agent` says that it served `epoch` for all its deals. `rollingHash` is
    /// `keccak256(abi.encode(previous rollingHash, epoch, receiptRoot))`.
    event Attested(address indexed agent, Epoch indexed epoch, bytes32 receiptRoot, bytes32 rollingHash);

    error EpochNotAttestable(Epoch epoch, Epoch current);
    error AlreadyAttested(Epoch epoch);

    /// @notice The caller, as an agent, attests a past epoch within the attestation window.
    function attest(Epoch epoch, bytes32 receiptRoot) external;
    function isAttested(address agent, Epoch epoch) external view returns (bool);
    function receiptsHash(address agent) external view returns (bytes32);

    // --- Constants ----------------------------------------------------------------------------------------------

    /// @notice The constant named `field` is outside of its limits.
    error ConfigInvalid(bytes32 field);

    function config() external view returns (MarketConfig memory);
    /// @notice EIP-712 domain that offers are signed under.
    function domainSeparator() external view returns (bytes32);
    /// @notice Second at which epoch 0 began.
    function genesis() external view returns (uint64);
    function currentEpoch() external view returns (Epoch);
    /// @notice Price of one replica per epoch, rounded down:
    /// `(milliCpu * pricePerVcpuEpoch * 1024 + memoryMib * pricePerGibEpoch * 1000) / 1024000`.
    function askOf(ProviderOffer calldata offer, uint32 milliCpu, uint32 memoryMib) external pure returns (uint256);
}

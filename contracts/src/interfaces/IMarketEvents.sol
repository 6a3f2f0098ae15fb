// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealId, DeveloperOffer, EndCause, Epoch, OfferHash, ProviderOffer, Reason} from "../types/Types.sol";

/// @title Events and errors of the market
/// @notice The events alone suffice to rebuild all of the market's state.
interface IMarketEvents {
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

    // --- Offers -------------------------------------------------------------------------------------------------

    /// @notice A provider offer became known to the chain: posted, or used in a match for the first time. Indexed by its agent,
    /// which finds its deals from here: `DealOpened` is indexed by the provider offer.
    event ProviderOfferOpened(OfferHash indexed offerHash, address indexed agent, ProviderOffer offer);
    /// @notice A developer offer became known to the chain: posted, or matched for the first time.
    event DeveloperOfferOpened(OfferHash indexed offerHash, address indexed developer, DeveloperOffer offer);
    /// @notice `owner` will accept no further match of this offer.
    event OfferCancelled(address indexed owner, OfferHash indexed offerHash);
    /// @notice Offers of `owner` with a smaller nonce are void.
    event NonceFloorRaised(address indexed owner, uint64 floor);
    /// @notice From now on the replicas of this offer run another artifact.
    event ArtifactUpdated(
        OfferHash indexed developerOffer, uint32 version, bytes32 artifact, bytes32 manifest, string artifactUrl
    );

    error NotOfferOwner(address owner, address caller);
    error OfferMalformed(Reason reason);
    error OfferAlreadyOpened(OfferHash offerHash);
    error OfferVoid(OfferHash offerHash, Reason reason);
    error OfferUnknown(OfferHash offerHash);
    error NonceFloorNotRaised(uint64 floor, uint64 wanted);
    error UpdateMalformed();

    // --- Matching -----------------------------------------------------------------------------------------------

    /// @notice A replica has a host. Developer, provider and agent are those of the offers. `locked` came from the developer's free
    /// balance, and a bond of `bondEpochs * pricePerEpoch` from the provider's.
    event DealOpened(
        DealId indexed dealId,
        OfferHash indexed developerOffer,
        OfferHash indexed providerOffer,
        uint64 pricePerEpoch,
        Epoch startEpoch,
        Epoch endEpoch,
        uint64 locked
    );
    /// @notice The developer of an offer paid `matcher` for the replicas that its match has placed.
    event MatcherPaid(OfferHash indexed developerOffer, address indexed matcher, uint256 amount);
    /// @notice A developer offer was passed over as a whole.
    event MatchSkipped(OfferHash indexed developerOffer, Reason reason);
    /// @notice One provider offer was passed over.
    event FillSkipped(OfferHash indexed developerOffer, OfferHash indexed providerOffer, Reason reason);
    event MatchingPaused(bool paused);

    error MatchingIsPaused();
    error NotOperator(address caller);

    // --- Deals --------------------------------------------------------------------------------------------------

    /// @notice `from` added `amount` to the deal's lock.
    event DealFunded(DealId indexed dealId, address indexed from, uint64 amount, Epoch paidUntil);
    /// @notice `paid` for attested epochs went to the payout account of the provider offer; `toppedUp` came from the
    /// developer's free balance into the lock, which was paid from. Epochs before `settledUntil` are settled.
    event DealSettled(DealId indexed dealId, uint64 paid, uint64 toppedUp, Epoch settledUntil);
    /// @notice The money ended: epochs from `since` on are not paid until somebody funds the deal. Said again after each
    /// `DealSettled` and `DealFunded` during which it stays so; without it, those two mean that the deal is funded.
    event DealUnfunded(DealId indexed dealId, Epoch since);
    /// @notice The deal has other terms from epoch `from` on. The bond is now `bond`, and the difference came from or went
    /// to the provider's free balance.
    event DealChanged(
        DealId indexed dealId,
        uint32 sequence,
        uint32 from,
        uint32 endEpoch,
        uint64 pricePerEpoch,
        uint32 milliCpu,
        uint32 memoryMib,
        uint64 bond,
        Epoch paidUntil
    );
    /// @notice `refunded` went from the lock back to the developer.
    event DealRefunded(DealId indexed dealId, uint64 refunded, Epoch paidUntil);
    /// @notice The deal will end at `endEpoch`; `refunded` went back to the developer at once.
    event DealEnding(DealId indexed dealId, EndCause cause, Epoch endEpoch, uint64 refunded);
    /// @notice The deal is over; what was locked went to the developer, the bond to `bondTo`.
    event DealEnded(DealId indexed dealId, EndCause cause, uint64 refunded, address bondTo, uint64 bond);
    event ClaimSkipped(DealId indexed dealId, Reason reason);

    error DealNotOpen(DealId dealId);
    error DealNotActive(DealId dealId);
    error ProviderOfferMismatch(DealId dealId);
    error NotDeveloper(DealId dealId, address caller);
    error NotProvider(DealId dealId, address caller);
    error NotYetOver(DealId dealId, Epoch closableFrom);
    error NotEvictable(DealId dealId);
    error SequenceWrong(uint32 expected, uint32 given);
    error Expired(uint64 validUntil);
    error SignatureInvalid(address signer);
    error ChangeMalformed();
    /// @notice The last change waits until epochs before `from` are settled.
    error ChangePending(Epoch from);
    error CapacityExceeded(uint256 free, uint256 needed);
    error ReceiptsAgree();

    // --- Attestations -------------------------------------------------------------------------------------------

    /// @notice `agent` says that it served `epoch` for all its deals. `rollingHash` is
    /// `keccak256(abi.encode(previous rollingHash, epoch, receiptRoot))`.
    event Attested(address indexed agent, Epoch indexed epoch, bytes32 receiptRoot, bytes32 rollingHash);

    error EpochNotAttestable(Epoch epoch, Epoch current);
    error AlreadyAttested(Epoch epoch);

    // --- Constants ----------------------------------------------------------------------------------------------

    /// @notice The constant named `field` is outside of its limits.
    error ConfigInvalid(bytes32 field);
}

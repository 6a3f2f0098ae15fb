// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DealRef, DeveloperOffer, Epoch, Match, OfferHash, ProviderOffer} from "../types/Types.sol";
import {IMarketEvents} from "./IMarketEvents.sol";

/// @title The market's everyday part
/// @notice What is called often, in the code of the market itself.
interface IMarketCore is IMarketEvents {
    // --- Escrow -------------------------------------------------------------------------------------------------

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

    /// @notice Posts the caller's provider offer; no signature is needed for it afterwards.
    function postProviderOffer(ProviderOffer calldata offer) external returns (OfferHash);
    /// @notice Posts the caller's developer offer; no signature is needed for it afterwards.
    function postDeveloperOffer(DeveloperOffer calldata offer) external returns (OfferHash);
    /// @notice Voids one of the caller's offers, seen by the chain or not. Its deals go on.
    function cancelOffer(OfferHash offerHash) external;
    /// @notice Voids all of the caller's offers with a nonce below `floor`. Their deals go on.
    function raiseNonceFloor(uint64 floor) external;

    // --- Matching -----------------------------------------------------------------------------------------------

    /// @notice Opens deals. Whatever fails its check is skipped with an event and harms none of its neighbours. Offers must
    /// be encoded as `abi.encode` does, which is the sender's part: another encoding reverts the call.
    /// @return opened Number of deals opened.
    function matchOffers(Match[] calldata matches) external returns (uint256 opened);
    /// @notice The operator stops or resumes new matches. No exit is ever blocked.
    function setMatchingPaused(bool paused) external;

    // --- Deals --------------------------------------------------------------------------------------------------

    /// @notice Pays attested epochs of many deals of one provider offer to its payout account and tops their locks up.
    /// Anyone may call. What the payout account receives can be spent after the call, not within it.
    /// @return paid Atoms paid in total.
    function claim(address provider, OfferHash providerOffer, OfferHash[] calldata developerOffers)
        external
        returns (uint256 paid);
    /// @notice Developer: end deals at the next epoch boundary; money for later epochs returns at once.
    function cancelDeals(DealRef[] calldata deals) external;

    // --- Attestations -------------------------------------------------------------------------------------------

    /// @notice The caller, as an agent, attests a past epoch within the attestation window.
    function attest(Epoch epoch, bytes32 receiptRoot) external;

    // --- Constants ----------------------------------------------------------------------------------------------

    /// @notice Code that answers what this interface does not list: `IMarketExtension`.
    function extension() external view returns (address);
}

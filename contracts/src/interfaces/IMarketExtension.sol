// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {
    AccountView,
    ArtifactUpdate,
    DealChange,
    DealId,
    DealRef,
    DealView,
    DeveloperOffer,
    DeveloperOfferView,
    Epoch,
    MarketConfig,
    OfferHash,
    ProviderOffer,
    ProviderOfferView,
    Reason,
    Receipt
} from "../types/Types.sol";
import {IMarketEvents} from "./IMarketEvents.sol";

/// @title The market's other part
/// @notice What is called seldom, or read: the code of a second contract that the market runs as its own.
interface IMarketExtension is IMarketEvents {
    // --- Deals --------------------------------------------------------------------------------------------------

    /// @notice Adds `amount` of the caller's free balance to a deal's lock. A deal that was unfunded goes on with
    /// the next epoch; what it missed is never charged.
    function fundDeal(DealRef calldata ref, uint64 amount) external;
    /// @notice Provider or its agent: end deals after the notice period. The bond returns when they end well.
    function giveNotice(DealRef[] calldata deals) external;
    /// @notice Ends a deal whose provider missed too many epochs in a row; the bond goes to the developer.
    function evict(DealRef calldata ref) external;
    /// @notice Ends a deal whose term is over and attestable no more, or that stayed unfunded beyond grace.
    function closeDeal(DealRef calldata ref) external;
    /// @notice Gives an active deal another end, price or size from the next epoch on. Both sides have signed; whoever
    /// of them calls need not. Epochs until then are paid at the old price. A deal whose term is over changes no more.
    /// @param providerOffer The offer that the deal was made of: the new size must fit in what is free of it.
    function changeDeal(
        DealRef calldata ref,
        DealChange calldata change,
        ProviderOffer calldata providerOffer,
        bytes calldata developerSignature,
        bytes calldata providerSignature
    ) external;
    /// @notice Ends a deal whose agent has signed two different receipts of one number; the bond goes to the developer.
    /// Anyone may call.
    function slash(
        DealRef calldata ref,
        Receipt calldata first,
        bytes calldata firstSignature,
        Receipt calldata second,
        bytes calldata secondSignature
    ) external;
    /// @notice Lets the replicas of a developer offer run another artifact. Signed by the developer, unless that is who
    /// calls.
    function updateArtifact(ArtifactUpdate calldata update, bytes calldata signature) external;

    // --- Reads --------------------------------------------------------------------------------------------------

    function dealIdOf(OfferHash developerOffer, address provider) external pure returns (DealId);
    /// @notice All of a deal; `state` is `None` when there is none of this name.
    function deal(DealRef calldata ref) external view returns (DealView memory);
    function developerOffer(OfferHash offerHash) external view returns (DeveloperOfferView memory);
    function providerOffer(address provider, OfferHash offerHash) external view returns (ProviderOfferView memory);
    function account(address owner) external view returns (AccountView memory);
    function isCancelled(address owner, OfferHash offerHash) external view returns (bool);
    function isAttested(address agent, Epoch epoch) external view returns (bool);
    /// @notice Number of epochs in `[from, to)` that `agent` has attested.
    function attestedEpochs(address agent, Epoch from, Epoch to) external view returns (uint256);
    function matchingPaused() external view returns (bool);
    /// @notice What a fill by `providerOffer` would be refused for now, signatures and `minReplicas` apart, if the caller
    /// were the matcher.
    function checkFill(DeveloperOffer calldata developerOffer, ProviderOffer calldata providerOffer)
        external
        view
        returns (Reason);
    function hashProviderOffer(ProviderOffer calldata offer) external view returns (OfferHash);
    function hashDeveloperOffer(DeveloperOffer calldata offer) external view returns (OfferHash);
    function hashDealChange(DealChange calldata change) external view returns (bytes32);
    function hashArtifactUpdate(ArtifactUpdate calldata update) external view returns (bytes32);
    function hashReceipt(Receipt calldata receipt) external view returns (bytes32);
    /// @notice Price of one replica per epoch, rounded down:
    /// `(milliCpu * pricePerVcpuEpoch * 1024 + memoryMib * pricePerGibEpoch * 1000) / 1024000`.
    function askOf(ProviderOffer calldata offer, uint32 milliCpu, uint32 memoryMib) external pure returns (uint256);

    // --- Constants ----------------------------------------------------------------------------------------------

    function config() external view returns (MarketConfig memory);
    /// @notice EIP-712 domain that offers are signed under.
    function domainSeparator() external view returns (bytes32);
    /// @notice Second at which epoch 0 began.
    function genesis() external view returns (uint64);
    function currentEpoch() external view returns (Epoch);
}

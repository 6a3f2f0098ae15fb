// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {ReentrancyGuardTransient} from "openzeppelin/utils/ReentrancyGuardTransient.sol";
import {EIP712} from "solady/utils/EIP712.sol";
import {IMarket} from "../interfaces/IMarket.sol";
import {Epoch, MarketConfig} from "../types/Types.sol";

/// @title MarketBase
/// @notice The market's constants, its clock and its signing domain.
/// @dev Only what calls the token is guarded against reentrancy. Nothing else calls out, but for the static calls that
/// ask contracts about their signatures.
abstract contract MarketBase is IMarket, EIP712, ReentrancyGuardTransient {
    uint256 internal constant MAX_ATTESTATION_WINDOW = 16;

    address internal immutable TOKEN;
    address internal immutable OPERATOR;
    uint256 internal immutable GENESIS;
    uint256 internal immutable EPOCH_LENGTH;
    uint256 internal immutable ATTESTATION_WINDOW;
    uint256 internal immutable EVICT_AFTER_MISSED;
    uint256 internal immutable BOND_EPOCHS;
    uint256 internal immutable MIN_PREPAID_EPOCHS;
    uint256 internal immutable GRACE_EPOCHS;
    uint256 internal immutable NOTICE_EPOCHS;

    constructor(MarketConfig memory constants) {
        if (constants.token.code.length == 0) revert ConfigInvalid("token");
        if (constants.epochLength == 0) revert ConfigInvalid("epochLength");
        if (constants.attestationWindow == 0 || constants.attestationWindow > MAX_ATTESTATION_WINDOW) {
            revert ConfigInvalid("attestationWindow");
        }
        if (constants.evictAfterMissed == 0) revert ConfigInvalid("evictAfterMissed");
        if (constants.minPrepaidEpochs == 0) revert ConfigInvalid("minPrepaidEpochs");
        TOKEN = constants.token;
        OPERATOR = constants.operator;
        GENESIS = block.timestamp;
        EPOCH_LENGTH = constants.epochLength;
        ATTESTATION_WINDOW = constants.attestationWindow;
        EVICT_AFTER_MISSED = constants.evictAfterMissed;
        BOND_EPOCHS = constants.bondEpochs;
        MIN_PREPAID_EPOCHS = constants.minPrepaidEpochs;
        GRACE_EPOCHS = constants.graceEpochs;
        NOTICE_EPOCHS = constants.noticeEpochs;
    }

    /// @inheritdoc IMarket
    function config() external view returns (MarketConfig memory) {
        return MarketConfig({
            token: TOKEN,
            operator: OPERATOR,
            epochLength: uint32(EPOCH_LENGTH),
            attestationWindow: uint32(ATTESTATION_WINDOW),
            evictAfterMissed: uint32(EVICT_AFTER_MISSED),
            bondEpochs: uint32(BOND_EPOCHS),
            minPrepaidEpochs: uint32(MIN_PREPAID_EPOCHS),
            graceEpochs: uint32(GRACE_EPOCHS),
            noticeEpochs: uint32(NOTICE_EPOCHS)
        });
    }

    /// @inheritdoc IMarket
    function genesis() external view returns (uint64) {
        return uint64(GENESIS);
    }

    /// @inheritdoc IMarket
    function currentEpoch() external view returns (Epoch) {
        return Epoch.wrap(uint32(_currentEpoch()));
    }

    /// @inheritdoc IMarket
    function domainSeparator() external view returns (bytes32) {
        return _domainSeparator();
    }

    /// @dev Stays below 2^32 for 136 years of one-second epochs.
    function _currentEpoch() internal view returns (uint256) {
        return (block.timestamp - GENESIS) / EPOCH_LENGTH;
    }

    /// @dev Epochs before this one can't be attested any more.
    function _closedBefore(uint256 current) internal view returns (uint256) {
        return current > ATTESTATION_WINDOW ? current - ATTESTATION_WINDOW : 0;
    }

    function _domainNameAndVersion() internal pure override returns (string memory, string memory) {
        return ("Wharfage Market", "1");
    }
}

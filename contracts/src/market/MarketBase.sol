// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {EIP712} from "solady/utils/EIP712.sol";
import {IMarketEvents} from "../interfaces/IMarketEvents.sol";
import {EpochBitmap} from "../libraries/EpochBitmap.sol";
import {DealId, MarketConfig, OfferHash} from "../types/Types.sol";

/// @title MarketBase
/// @notice The market's constants, its clock, its signing domain and all of its storage.
/// @dev `Market` and `MarketExtension` are two contracts over one storage: whatever they keep is declared here, in one
/// order, and nowhere else.
abstract contract MarketBase is IMarketEvents, EIP712 {
    /// @dev The last change of a deal: one word.
    struct Change {
        uint32 sequence;
        // Epochs before this one cost `oldPrice`.
        uint32 from;
        uint64 oldPrice;
        uint32 milliCpu;
        uint32 memoryMib;
    }

    /// @dev The last update of a developer offer's artifact.
    struct Artifact {
        uint32 version;
        bytes32 artifact;
        bytes32 manifest;
    }

    uint256 internal constant HAS_CANCELLED = 1 << 255;
    uint256 internal constant ONE_OFFER = 1 << 192;

    uint256 internal constant MAX_ATTESTATION_WINDOW = EpochBitmap.REACH;
    uint256 internal constant MAX_EVICT_AFTER_MISSED = 200;
    uint256 internal constant MAX_BOND_EPOCHS = 10_000;
    uint256 internal constant MAX_MIN_PREPAID_EPOCHS = type(uint16).max;

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

    /// @dev From above: whether an offer was cancelled before the chain knew it 1, number of the last provider offer 63, nonce floor
    /// 64, free balance 128, so that a match reads and writes all of them at once. Credits from deals may lift the balance
    /// above the limit for deposits; 128 bits hold more than all of them together.
    mapping(address owner => uint256 word) internal _accounts;
    /// @dev `SupplyWord`s. Keyed by the owner, since nobody can tell whose a bare hash is. A developer offer that was
    /// cancelled before the chain knew it has one too, with that mark alone.
    mapping(address owner => mapping(bytes32 offerHash => uint256 word)) internal _supplies;
    mapping(bytes32 providerOffer => address payout) internal _payouts;
    /// @dev `DemandWord`s.
    mapping(bytes32 developerOffer => uint256 word) internal _demands;
    mapping(bytes32 developerOffer => Artifact) internal _artifacts;
    /// @dev `DealWord`s.
    mapping(DealId => uint256 word) internal _deals;
    mapping(DealId => Change) internal _changes;
    mapping(address agent => EpochBitmap.Bitmap) internal _attested;
    mapping(address agent => bytes32) internal _rollingHashes;
    bool internal _matchingPaused;

    constructor(MarketConfig memory constants) {
        if (constants.token.code.length == 0) revert ConfigInvalid("token");
        if (constants.genesis > block.timestamp) revert ConfigInvalid("genesis");
        if (constants.epochLength == 0) revert ConfigInvalid("epochLength");
        _requireWithin(constants.attestationWindow, 1, MAX_ATTESTATION_WINDOW, "attestationWindow");
        _requireWithin(constants.evictAfterMissed, 1, MAX_EVICT_AFTER_MISSED, "evictAfterMissed");
        _requireWithin(constants.bondEpochs, 0, MAX_BOND_EPOCHS, "bondEpochs");
        _requireWithin(constants.minPrepaidEpochs, 1, MAX_MIN_PREPAID_EPOCHS, "minPrepaidEpochs");
        TOKEN = constants.token;
        OPERATOR = constants.operator;
        GENESIS = constants.genesis;
        EPOCH_LENGTH = constants.epochLength;
        ATTESTATION_WINDOW = constants.attestationWindow;
        EVICT_AFTER_MISSED = constants.evictAfterMissed;
        BOND_EPOCHS = constants.bondEpochs;
        MIN_PREPAID_EPOCHS = constants.minPrepaidEpochs;
        GRACE_EPOCHS = constants.graceEpochs;
        NOTICE_EPOCHS = constants.noticeEpochs;
    }

    /// @dev Stays below 2^32 for 136 years of one-second epochs.
    function _currentEpoch() internal view returns (uint256) {
        unchecked {
            return (block.timestamp - GENESIS) / EPOCH_LENGTH;
        }
    }

    /// @dev Epochs before this one can't be attested any more.
    function _closedBefore(uint256 current) internal view returns (uint256) {
        unchecked {
            return current > ATTESTATION_WINDOW ? current - ATTESTATION_WINDOW : 0;
        }
    }

    /// @dev `keccak256(abi.encode(developerOffer, provider))`.
    function _dealIdOf(OfferHash developerOffer, address provider) internal pure returns (DealId dealId) {
        assembly ("memory-safe") {
            mstore(0, developerOffer)
            mstore(0x20, shr(96, shl(96, provider)))
            dealId := keccak256(0, 0x40)
        }
    }

    function _nonceFloorOf(uint256 accountWord) internal pure returns (uint256) {
        return uint64(accountWord >> 128);
    }

    function _freeOf(address owner) internal view returns (uint256) {
        return uint128(_accounts[owner]);
    }

    /// @dev All tokens of the market together are less than 2^128 atoms.
    function _credit(address owner, uint256 amount) internal {
        unchecked {
            _accounts[owner] += amount;
        }
    }

    function _debit(address owner, uint256 amount) internal {
        uint256 word = _accounts[owner];
        if (uint128(word) < amount) revert BalanceTooLow(uint128(word), amount);
        unchecked {
            _accounts[owner] = word - amount;
        }
    }

    function _domainNameAndVersion() internal pure override returns (string memory, string memory) {
        return ("Wharfage Market", "1");
    }

    function _requireWithin(uint256 value, uint256 least, uint256 most, bytes32 field) private pure {
        if (value < least || value > most) revert ConfigInvalid(field);
    }
}

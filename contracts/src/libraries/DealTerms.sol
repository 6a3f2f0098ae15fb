// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {LibBytes} from "solady/utils/LibBytes.sol";
import {LibRLP} from "solady/utils/LibRLP.sol";
import {SSTORE2} from "solady/utils/SSTORE2.sol";

/// @dev What never changes about a deal.
struct Terms {
    bytes32 developerOffer;
    address developer;
    uint32 milliCpu;
    uint32 memoryMib;
    uint32 startEpoch;
    uint32 prepaidEpochs;
    bytes32 providerOffer;
    address provider;
    address agent;
    address payout;
    uint64 pricePerEpoch;
}

/// @title DealTerms
/// @notice Terms of the deals of one match, written once as the code of a data contract.
/// @dev A word of code costs 6,400 gas where a word of storage costs 22,100, and reading all terms of a deal costs one
/// cold account access instead of one per word. One data contract holds the developer's part once and the provider's
/// part per deal; deals name it by its number, which is the nonce that this contract created it with. Nothing else in
/// this contract creates contracts.
library DealTerms {
    using LibBytes for bytes;

    uint256 private constant HEAD_BYTES = 68;
    uint256 private constant ENTRY_BYTES = 100;

    error TermsMisplaced(address expected, address actual);

    /// @notice The developer's part, to which the providers' parts are appended in the order of their deals.
    function head(Terms memory terms) internal pure returns (bytes memory) {
        return abi.encodePacked(
            terms.developerOffer,
            terms.developer,
            terms.milliCpu,
            terms.memoryMib,
            terms.startEpoch,
            terms.prepaidEpochs
        );
    }

    /// @notice The provider's part of one deal.
    function entry(Terms memory terms) internal pure returns (bytes memory) {
        return abi.encodePacked(terms.providerOffer, terms.provider, terms.agent, terms.payout, terms.pricePerEpoch);
    }

    /// @notice Writes `data` as data contract `number`. Numbers count up from 1 without gaps.
    function write(bytes memory data, uint256 number) internal {
        address pointer = SSTORE2.write(data);
        address expected = pointerOf(number);
        if (pointer != expected) revert TermsMisplaced(expected, pointer);
    }

    /// @notice Terms of the deal that stands at `index` of data contract `number`.
    function read(uint256 number, uint256 index) internal view returns (Terms memory terms) {
        address pointer = pointerOf(number);
        bytes memory data = SSTORE2.read(pointer, 0, HEAD_BYTES);
        terms.developerOffer = data.load(0);
        uint256 packed = uint256(data.load(HEAD_BYTES - 32));
        terms.developer = address(bytes20(data.load(32)));
        terms.milliCpu = uint32(packed >> 96);
        terms.memoryMib = uint32(packed >> 64);
        terms.startEpoch = uint32(packed >> 32);
        terms.prepaidEpochs = uint32(packed);
        unchecked {
            uint256 start = HEAD_BYTES + index * ENTRY_BYTES;
            data = SSTORE2.read(pointer, start, start + ENTRY_BYTES);
        }
        terms.providerOffer = data.load(0);
        terms.provider = address(bytes20(data.load(32)));
        terms.agent = address(bytes20(data.load(52)));
        packed = uint256(data.load(ENTRY_BYTES - 32));
        terms.payout = address(uint160(packed >> 64));
        terms.pricePerEpoch = uint64(packed);
    }

    /// @notice Address of data contract `number` of this contract.
    function pointerOf(uint256 number) internal view returns (address) {
        return LibRLP.computeAddress(address(this), number);
    }
}

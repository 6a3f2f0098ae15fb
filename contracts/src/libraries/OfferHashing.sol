// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {DeveloperOffer, ProviderOffer} from "../types/Types.sol";

/// @title OfferHashing
/// @notice EIP-712 `hashStruct` of the offers. User-defined types stand for their base types.
library OfferHashing {
    bytes32 internal constant PROVIDER_OFFER_TYPEHASH = keccak256(
        "ProviderOffer(address provider,address agent,address payout,bytes8 region,uint32 milliCpu,uint32 memoryMib,uint64 features,uint64 pricePerVcpuEpoch,uint64 pricePerGibEpoch,uint32 maxEpochs,uint64 validUntil,uint64 nonce,string endpoint)"
    );
    bytes32 internal constant DEVELOPER_OFFER_TYPEHASH = keccak256(
        "DeveloperOffer(address developer,bytes32 artifact,bytes32 manifest,uint32 milliCpu,uint32 memoryMib,uint64 features,bytes8[] regions,uint16 minReplicas,uint16 replicas,uint64 maxPricePerEpoch,uint32 epochs,uint32 prepaidEpochs,uint64 validUntil,uint64 nonce,address matcher,address[] allow,address[] deny,string artifactUrl)"
    );

    /// @dev The fixed-size fields stand in calldata just as EIP-712 encodes them, word for word. A word with bits
    /// outside of its type gives a hash that no well-formed offer has, and reverts where the field is read.
    function structHash(ProviderOffer calldata offer) internal pure returns (bytes32) {
        uint256 start;
        assembly ("memory-safe") {
            start := offer
        }
        bytes calldata head = msg.data[start:start + 12 * 32];
        return keccak256(bytes.concat(PROVIDER_OFFER_TYPEHASH, head, keccak256(bytes(offer.endpoint))));
    }

    /// @dev As above; the seventh word is the place of `regions` and makes way for its hash. `abi.encodePacked` pads
    /// the elements of arrays to words, which is what EIP-712 hashes.
    function structHash(DeveloperOffer calldata offer) internal pure returns (bytes32) {
        uint256 start;
        assembly ("memory-safe") {
            start := offer
        }
        bytes calldata head = msg.data[start:start + 6 * 32];
        bytes calldata middle = msg.data[start + 7 * 32:start + 15 * 32];
        return keccak256(
            bytes.concat(
                DEVELOPER_OFFER_TYPEHASH,
                head,
                keccak256(abi.encodePacked(offer.regions)),
                middle,
                keccak256(abi.encodePacked(offer.allow)),
                keccak256(abi.encodePacked(offer.deny)),
                keccak256(bytes(offer.artifactUrl))
            )
        );
    }
}

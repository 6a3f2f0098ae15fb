// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {ArtifactUpdate, DealChange, DeveloperOffer, ProviderOffer, Receipt} from "../types/Types.sol";

/// @title OfferHashing
/// @notice EIP-712 `hashStruct` of everything that is signed. User-defined types stand for their base types.
library OfferHashing {
    bytes32 internal constant PROVIDER_OFFER_TYPEHASH = keccak256(
        "ProviderOffer(address provider,address agent,address payout,bytes8 region,uint32 milliCpu,uint32 memoryMib,uint64 features,uint64 pricePerVcpuEpoch,uint64 pricePerGibEpoch,uint32 maxEpochs,uint64 validUntil,uint64 nonce,string endpoint)"
    );
    bytes32 internal constant DEVELOPER_OFFER_TYPEHASH = keccak256(
        "DeveloperOffer(address developer,bytes32 artifact,bytes32 manifest,uint32 milliCpu,uint32 memoryMib,uint64 features,bytes8[] regions,uint16 minReplicas,uint16 replicas,uint64 maxPricePerEpoch,uint32 epochs,uint32 prepaidEpochs,uint64 validUntil,uint64 nonce,address matcher,uint64 matcherFee,address[] allow,address[] deny,string artifactUrl)"
    );
    bytes32 internal constant DEAL_CHANGE_TYPEHASH = keccak256(
        "DealChange(bytes32 dealId,uint32 sequence,uint32 endEpoch,uint32 milliCpu,uint32 memoryMib,uint64 pricePerEpoch,uint64 validUntil)"
    );
    bytes32 internal constant ARTIFACT_UPDATE_TYPEHASH = keccak256(
        "ArtifactUpdate(bytes32 developerOffer,uint32 version,bytes32 artifact,bytes32 manifest,uint64 validUntil,string artifactUrl)"
    );
    bytes32 internal constant RECEIPT_TYPEHASH = keccak256("Receipt(bytes32 dealId,uint64 sequence,bytes32 content)");

    /// @dev The words of an offer in memory are just what EIP-712 hashes, behind the typehash, but for those that point at
    /// lists and texts: these make way for hashes, and are put back.
    function structHash(ProviderOffer memory offer) internal pure returns (bytes32 hash) {
        bytes32 typehash = PROVIDER_OFFER_TYPEHASH;
        bytes32 endpoint = keccak256(bytes(offer.endpoint));
        assembly ("memory-safe") {
            let start := sub(offer, 0x20)
            let before := mload(start)
            let pointer := add(offer, 0x180)
            let text := mload(pointer)
            mstore(start, typehash)
            mstore(pointer, endpoint)
            hash := keccak256(start, 0x1c0)
            mstore(pointer, text)
            mstore(start, before)
        }
    }

    /// @dev As above. Elements of lists stand in whole words, which is what EIP-712 hashes.
    function structHash(DeveloperOffer memory offer) internal pure returns (bytes32 hash) {
        bytes32 typehash = DEVELOPER_OFFER_TYPEHASH;
        bytes32 url = keccak256(bytes(offer.artifactUrl));
        assembly ("memory-safe") {
            let start := sub(offer, 0x20)
            let before := mload(start)
            let regions := mload(add(offer, 0xc0))
            let allow := mload(add(offer, 0x200))
            let deny := mload(add(offer, 0x220))
            let text := mload(add(offer, 0x240))
            mstore(start, typehash)
            mstore(add(offer, 0xc0), keccak256(add(regions, 0x20), shl(5, mload(regions))))
            mstore(add(offer, 0x200), keccak256(add(allow, 0x20), shl(5, mload(allow))))
            mstore(add(offer, 0x220), keccak256(add(deny, 0x20), shl(5, mload(deny))))
            mstore(add(offer, 0x240), url)
            hash := keccak256(start, 0x280)
            mstore(add(offer, 0xc0), regions)
            mstore(add(offer, 0x200), allow)
            mstore(add(offer, 0x220), deny)
            mstore(add(offer, 0x240), text)
            mstore(start, before)
        }
    }

    function structHash(DealChange calldata change) internal pure returns (bytes32) {
        return keccak256(abi.encode(DEAL_CHANGE_TYPEHASH, change));
    }

    function structHash(ArtifactUpdate calldata update) internal pure returns (bytes32) {
        return keccak256(
            abi.encode(
                ARTIFACT_UPDATE_TYPEHASH,
                update.developerOffer,
                update.version,
                update.artifact,
                update.manifest,
                update.validUntil,
                keccak256(bytes(update.artifactUrl))
            )
        );
    }

    function structHash(Receipt calldata receipt) internal pure returns (bytes32) {
        return keccak256(abi.encode(RECEIPT_TYPEHASH, receipt));
    }
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {OfferHashing} from "../src/libraries/OfferHashing.sol";
import {DeveloperOffer, OfferHash, ProviderOffer, Region} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

contract HashingTest is Base {
    string internal constant PROVIDER_TYPE =
        "ProviderOffer(address provider,address agent,address payout,bytes8 region,uint32 milliCpu,uint32 memoryMib,uint64 features,uint64 pricePerVcpuEpoch,uint64 pricePerGibEpoch,uint32 maxEpochs,uint64 validUntil,uint64 nonce,string endpoint)";
    string internal constant DEVELOPER_TYPE =
        "DeveloperOffer(address developer,bytes32 artifact,bytes32 manifest,uint32 milliCpu,uint32 memoryMib,uint64 features,bytes8[] regions,uint16 minReplicas,uint16 replicas,uint64 maxPricePerEpoch,uint32 epochs,uint32 prepaidEpochs,uint64 validUntil,uint64 nonce,address matcher,uint64 matcherFee,address[] allow,address[] deny,string artifactUrl)";

    function test_TypehashesAreThoseOfTheStructs() public pure {
        assertEq(OfferHashing.PROVIDER_OFFER_TYPEHASH, keccak256(bytes(PROVIDER_TYPE)));
        assertEq(OfferHashing.DEVELOPER_OFFER_TYPEHASH, keccak256(bytes(DEVELOPER_TYPE)));
        // Forge orders and canonicalises by itself, from the type alone.
        assertEq(OfferHashing.PROVIDER_OFFER_TYPEHASH, vm.eip712HashType(PROVIDER_TYPE));
        assertEq(OfferHashing.DEVELOPER_OFFER_TYPEHASH, vm.eip712HashType(DEVELOPER_TYPE));
    }

    function test_DomainIsTheMarketOnThisChain() public view {
        bytes32 domainType =
            keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        bytes32 expected = keccak256(
            abi.encode(domainType, keccak256("Wharfage Market"), keccak256("1"), block.chainid, address(market))
        );
        assertEq(market.domainSeparator(), expected);
    }

    function test_DomainFollowsAForkOfTheChain() public {
        bytes32 before = market.domainSeparator();
        vm.chainId(31_338);
        assertNotEq(market.domainSeparator(), before);
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_ProviderOfferHashIsForgesOwn(ProviderOffer memory offer) public view {
        bytes32 structHash = vm.eip712HashStruct(PROVIDER_TYPE, abi.encode(offer));
        assertEq(OfferHash.unwrap(market.hashProviderOffer(offer)), typed(structHash));
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_DeveloperOfferHashIsForgesOwn(DeveloperOffer memory offer) public view {
        bytes32 structHash = vm.eip712HashStruct(DEVELOPER_TYPE, abi.encode(offer));
        assertEq(OfferHash.unwrap(market.hashDeveloperOffer(offer)), typed(structHash));
    }

    function testFuzz_EveryFieldCounts(uint256 seed) public view {
        DeveloperOffer memory demand = demandOf(1);
        OfferHash before = market.hashDeveloperOffer(demand);
        uint256 field = seed % 6;
        if (field == 0) demand.nonce += 1;
        if (field == 1) demand.regions[0] = Region.wrap("na");
        if (field == 2) demand.artifactUrl = "";
        if (field == 3) demand.allow = new address[](1);
        if (field == 4) demand.deny = new address[](1);
        if (field == 5) demand.manifest = bytes32(uint256(1));
        assertNotEq(OfferHash.unwrap(market.hashDeveloperOffer(demand)), OfferHash.unwrap(before));
    }

    function typed(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", market.domainSeparator(), structHash));
    }
}

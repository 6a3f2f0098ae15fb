// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Vm} from "forge-std/Vm.sol";
import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {OfferEncoding} from "../src/libraries/OfferEncoding.sol";
import {DeveloperOffer, Fill, Match, OfferHash, ProviderOffer, Reason, Region} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";

/// @dev Offers as bare words of calldata: only what `abi.encode` makes is read, and no word loses bits on its way.
contract EncodingTest is Base {
    string internal constant PROVIDER_TYPE =
        "ProviderOffer(address provider,address agent,address payout,bytes8 region,uint32 milliCpu,uint32 memoryMib,uint64 features,uint64 pricePerVcpuEpoch,uint64 pricePerGibEpoch,uint32 maxEpochs,uint64 validUntil,uint64 nonce,string endpoint)";
    string internal constant DEVELOPER_TYPE =
        "DeveloperOffer(address developer,bytes32 artifact,bytes32 manifest,uint32 milliCpu,uint32 memoryMib,uint64 features,bytes8[] regions,uint16 minReplicas,uint16 replicas,uint64 maxPricePerEpoch,uint32 epochs,uint32 prepaidEpochs,uint64 validUntil,uint64 nonce,address matcher,uint64 matcherFee,address[] allow,address[] deny,string artifactUrl)";

    /// @dev Words of an encoded offer: behind the selector stands where the offer begins, then the offer.
    uint256 internal constant PROVIDER_WORDS = 13;
    uint256 internal constant DEVELOPER_WORDS = 19;
    uint256 internal constant ENDPOINT = 12;
    uint256 internal constant REGIONS = 6;
    uint256 internal constant ALLOW = 16;
    uint256 internal constant DENY = 17;
    uint256 internal constant URL = 18;

    Provider internal provider;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
    }

    // --- Words of calldata ------------------------------------------------------------------------------------------

    /// @dev Where word `index` of the offer stands in `data`, behind the length of `data` itself.
    function placeOf(uint256 index) internal pure returns (uint256) {
        return 0x20 + 4 + 0x20 + 0x20 * index;
    }

    function wordAt(bytes memory data, uint256 index) internal pure returns (uint256 word) {
        uint256 place = placeOf(index);
        assembly {
            word := mload(add(data, place))
        }
    }

    /// @dev A copy of `data` with another word.
    function withWord(bytes memory data, uint256 index, uint256 word) internal pure returns (bytes memory changed) {
        changed = bytes.concat(data);
        uint256 place = placeOf(index);
        assembly {
            mstore(add(changed, place), word)
        }
    }

    /// @dev A copy of `data` with `more` put in before word `index`.
    function withInsertion(bytes memory data, uint256 index, bytes memory more) internal pure returns (bytes memory) {
        uint256 at = placeOf(index) - 0x20;
        bytes memory head = new bytes(at);
        bytes memory tail = new bytes(data.length - at);
        for (uint256 i = 0; i < data.length; ++i) {
            if (i < at) head[i] = data[i];
            else tail[i - at] = data[i];
        }
        return bytes.concat(head, more, tail);
    }

    function cut(bytes memory data, uint256 length) internal pure returns (bytes memory shorter) {
        shorter = bytes.concat(data);
        assembly {
            mstore(shorter, length)
        }
    }

    function providerCall() internal view returns (bytes memory) {
        return abi.encodeCall(market.postProviderOffer, (supplyOf(provider)));
    }

    /// @dev With something in each list.
    function fullDemand() internal view returns (DeveloperOffer memory demand) {
        demand = demandOf(1);
        demand.allow = new address[](2);
        (demand.allow[0], demand.allow[1]) = (provider.account, stranger);
        demand.deny = new address[](1);
        demand.deny[0] = operator;
    }

    function developerCall() internal view returns (bytes memory) {
        return abi.encodeCall(market.postDeveloperOffer, (fullDemand()));
    }

    function send(address from, bytes memory data) internal returns (bool success, bytes memory answer) {
        vm.prank(from);
        (success, answer) = address(market).call(data);
    }

    function assertRefused(address from, bytes memory data, bytes memory why) internal {
        (bool success, bytes memory answer) = send(from, data);
        assertFalse(success, "refused");
        assertEq(answer, why, "why");
    }

    function assertNotCanonical(bytes memory data, bool isProviders) internal {
        address from = isProviders ? provider.account : developer;
        assertRefused(from, data, abi.encodePacked(OfferEncoding.OfferNotCanonical.selector));
    }

    // --- What is no encoding ----------------------------------------------------------------------------------------

    function test_AsEncodedTheyAreTaken() public {
        (bool success,) = send(provider.account, providerCall());
        assertTrue(success, "provider's");
        (success,) = send(developer, developerCall());
        assertTrue(success, "developer's");
    }

    function test_TextsStandWhereTheyBelong() public {
        bytes memory data = providerCall();
        uint256 pointer = wordAt(data, ENDPOINT);
        assertEq(pointer, PROVIDER_WORDS * 32);
        assertNotCanonical(withWord(data, ENDPOINT, 0), true);
        assertNotCanonical(withWord(data, ENDPOINT, pointer - 32), true);
        assertNotCanonical(withWord(data, ENDPOINT, pointer + 1), true);
        assertNotCanonical(withWord(data, ENDPOINT, pointer + (1 << 255)), true);
        assertNotCanonical(withWord(data, ENDPOINT, type(uint256).max), true);
        // A gap, with a pointer that jumps over it.
        bytes memory gap = withInsertion(withWord(data, ENDPOINT, pointer + 32), PROVIDER_WORDS, new bytes(32));
        assertNotCanonical(gap, true);
    }

    function test_ListsStandOneBehindTheOther() public {
        bytes memory data = developerCall();
        uint256[4] memory fields = [REGIONS, ALLOW, DENY, URL];
        for (uint256 i = 0; i < fields.length; ++i) {
            uint256 pointer = wordAt(data, fields[i]);
            assertNotCanonical(withWord(data, fields[i], 0), false);
            assertNotCanonical(withWord(data, fields[i], pointer + 32), false);
            assertNotCanonical(withWord(data, fields[i], pointer - 32), false);
            assertNotCanonical(withWord(data, fields[i], pointer + (1 << 128)), false);
        }
    }

    function test_SwappedListsAreRefused() public {
        bytes memory data = developerCall();
        uint256 allow = wordAt(data, ALLOW);
        uint256 deny = wordAt(data, DENY);
        assertNotCanonical(withWord(withWord(data, ALLOW, deny), DENY, allow), false);
    }

    function test_ListsThatShareTheirWordsAreRefused() public {
        // Encoders make two empty lists, never one for both.
        DeveloperOffer memory demand = demandOf(1);
        bytes memory data = abi.encodeCall(market.postDeveloperOffer, (demand));
        uint256 allow = wordAt(data, ALLOW);
        assertNotCanonical(withWord(data, DENY, allow), false);
        // Two lists over the same places, the first of them longer.
        data = developerCall();
        uint256 place = wordAt(data, ALLOW) / 32;
        assertNotCanonical(withWord(data, place, 3), false);
        assertNotCanonical(withWord(data, place, 1), false);
    }

    function test_GapsBetweenListsAreRefused() public {
        bytes memory data = developerCall();
        uint256[4] memory fields = [REGIONS, ALLOW, DENY, URL];
        for (uint256 i = 0; i < fields.length; ++i) {
            uint256 place = wordAt(data, fields[i]) / 32;
            bytes memory gap = withInsertion(data, place, new bytes(32));
            for (uint256 k = i; k < fields.length; ++k) {
                gap = withWord(gap, fields[k], wordAt(gap, fields[k]) + 32);
            }
            assertNotCanonical(gap, false);
        }
    }

    function test_PaddingIsZero() public {
        bytes memory data = providerCall();
        uint256 length = bytes(supplyOf(provider).endpoint).length;
        assertEq(length, 21);
        for (uint256 i = length; i < 32; ++i) {
            assertNotCanonical(withWord(data, 14, wordAt(data, 14) | (2 ** (8 * (31 - i)))), true);
            assertNotCanonical(withWord(data, 14, wordAt(data, 14) | (0x80 * 2 ** (8 * (31 - i)))), true);
        }
        // Shorter by one, the last letter would be padding.
        assertNotCanonical(withWord(data, 13, length - 1), true);
    }

    function testFuzz_PaddingOfAnyTextIsZero(uint8 length, uint256 excess) public {
        length = uint8(bound(length, 0, 100));
        DeveloperOffer memory demand = fullDemand();
        demand.artifactUrl = string(letters(length));
        bytes memory data = abi.encodeCall(market.postDeveloperOffer, (demand));
        if (length % 32 != 0) {
            uint256 last = wordAt(data, URL) / 32 + 1 + length / 32;
            uint256 mask = type(uint256).max >> (8 * (length % 32));
            excess = bound(excess & mask, 1, mask);
            assertNotCanonical(withWord(data, last, wordAt(data, last) | excess), false);
        }
        (bool success,) = send(developer, data);
        assertTrue(success, "clean");
    }

    function letters(uint256 length) internal pure returns (bytes memory text) {
        text = new bytes(length);
        for (uint256 i = 0; i < length; ++i) {
            text[i] = "x";
        }
    }

    function test_NothingLiesBehindCalldata() public {
        bytes memory data = providerCall();
        uint256[6] memory lengths = [uint256(33), 1 << 32, 1 << 64, 1 << 255, type(uint256).max, type(uint256).max - 31];
        for (uint256 i = 0; i < lengths.length; ++i) {
            assertNotCanonical(withWord(data, 13, lengths[i]), true);
        }
        // A byte is missing.
        assertNotCanonical(cut(data, data.length - 1), true);
        assertNotCanonical(cut(data, data.length - 32), true);
    }

    function test_NoListLiesBehindCalldata() public {
        bytes memory data = developerCall();
        uint256[4] memory fields = [REGIONS, ALLOW, DENY, URL];
        // 2^251 words are 2^256 bytes, which is nothing once it has overflowed.
        uint256[6] memory lengths = [uint256(1000), 1 << 32, 1 << 64, 1 << 251, (1 << 251) + 1, type(uint256).max];
        for (uint256 i = 0; i < fields.length; ++i) {
            uint256 place = wordAt(data, fields[i]) / 32;
            for (uint256 k = 0; k < lengths.length; ++k) {
                assertNotCanonical(withWord(data, place, lengths[k]), false);
            }
        }
        assertNotCanonical(cut(data, data.length - 1), false);
    }

    function testFuzz_CutShortNothingIsTaken(uint16 length, bool isProviders) public {
        bytes memory data = isProviders ? providerCall() : developerCall();
        data = cut(data, bound(length, 4, data.length - 1));
        (bool success,) = send(isProviders ? provider.account : developer, data);
        assertFalse(success);
    }

    function test_BytesBehindTheOfferAreNotLookedAt() public {
        (bool success, bytes memory answer) = send(provider.account, bytes.concat(providerCall(), hex"ff00ff"));
        assertTrue(success);
        assertEq(abi.decode(answer, (bytes32)), OfferHash.unwrap(market.hashProviderOffer(supplyOf(provider))));
    }

    function test_OneOfferThatIsNoEncodingFailsTheMatchAsAWhole() public {
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        Match[] memory matches = new Match[](1);
        matches[0] = item;
        bytes memory data = abi.encodeCall(market.matchOffers, (matches));
        // The first word of this value is the place of the provider offer's text.
        bytes32 wanted = bytes32(PROVIDER_WORDS * 32);
        for (uint256 i = data.length / 32 - 1; i > 0; --i) {
            uint256 place = 0x20 + 4 + 32 * i;
            bytes32 word;
            assembly {
                word := mload(add(data, place))
            }
            if (word != wanted) continue;
            assembly {
                mstore(add(data, place), 0)
            }
            break;
        }
        assertRefused(stranger, data, abi.encodePacked(OfferEncoding.OfferNotCanonical.selector));
    }

    // --- Words that hold more than their type -----------------------------------------------------------------------

    /// @dev Bits of each of the provider offer's words; the region fills its word from above.
    function providerBits(uint256 index) internal pure returns (uint256) {
        if (index < 3) return 160;
        if (index == 4 || index == 5 || index == 9) return 32;
        return 64;
    }

    function test_NoWordOfAProviderOfferIsCutOff() public {
        bytes memory data = providerCall();
        for (uint256 index = 0; index < ENDPOINT; ++index) {
            for (uint256 k = 0; k < 3; ++k) {
                bytes memory dirty =
                    withWord(data, index, wordAt(data, index) ^ dirt(index == 3, providerBits(index), k));
                (bool success, bytes memory answer) = send(provider.account, dirty);
                assertFalse(success, vm.toString(index));
                // Whose it is may be looked at first: with more bits it is nobody's.
                if (index == 0 && bytes4(answer) == IMarketEvents.NotOfferOwner.selector) continue;
                bytes memory why =
                    abi.encodeWithSelector(IMarketEvents.OfferMalformed.selector, Reason.ProviderOfferMalformed);
                assertEq(answer, why, vm.toString(index));
            }
        }
    }

    /// @dev The lowest, the highest and all of the bits that a word of a type does not use.
    function dirt(bool isRegion, uint256 bits, uint256 kind) internal pure returns (uint256) {
        if (isRegion) return kind == 0 ? 1 << 191 : kind == 1 ? 1 : (1 << 192) - 1;
        return kind == 0 ? 2 ** bits : kind == 1 ? 1 << 255 : type(uint256).max << bits;
    }

    function developerBits(uint256 index) internal pure returns (uint256) {
        if (index == 0 || index == 14) return 160;
        if (index == 3 || index == 4 || index == 10 || index == 11) return 32;
        return index == 7 || index == 8 ? 16 : 64;
    }

    function test_NoWordOfADeveloperOfferIsCutOff() public {
        bytes memory data = developerCall();
        for (uint256 index = 0; index < ALLOW; ++index) {
            // Digests fill their words; lists are seen to above.
            if (index == 1 || index == 2 || index == REGIONS) continue;
            for (uint256 k = 0; k < 3; ++k) {
                assertDeveloperMalformed(
                    withWord(data, index, wordAt(data, index) ^ dirt(false, developerBits(index), k))
                );
            }
        }
    }

    function assertDeveloperMalformed(bytes memory data) internal {
        (bool success, bytes memory answer) = send(developer, data);
        assertFalse(success);
        if (bytes4(answer) == IMarketEvents.NotOfferOwner.selector) return;
        bytes memory why = abi.encodeWithSelector(IMarketEvents.OfferMalformed.selector, Reason.DeveloperOfferMalformed);
        assertEq(answer, why);
    }

    function test_NoElementOfAListIsCutOff() public {
        bytes memory data = developerCall();
        uint256 place = wordAt(data, REGIONS) / 32 + 1;
        for (uint256 k = 0; k < 3; ++k) {
            assertDeveloperMalformed(withWord(data, place, wordAt(data, place) ^ dirt(true, 64, k)));
        }
        uint256[3] memory places =
            [wordAt(data, ALLOW) / 32 + 1, wordAt(data, ALLOW) / 32 + 2, wordAt(data, DENY) / 32 + 1];
        for (uint256 i = 0; i < places.length; ++i) {
            for (uint256 k = 0; k < 3; ++k) {
                assertDeveloperMalformed(withWord(data, places[i], wordAt(data, places[i]) ^ dirt(false, 160, k)));
            }
        }
    }

    /// @dev An offer with excess bits has another hash than the one without, so that no signature serves for both.
    function testFuzz_ExcessBitsMakeAnotherOffer(uint256 index, uint256 excess) public view {
        index = bound(index, 0, ENDPOINT - 1);
        excess = index == 3 ? excess & ((1 << 192) - 1) : excess & (type(uint256).max << providerBits(index));
        vm.assume(excess != 0);
        bytes memory data = abi.encodeCall(market.hashProviderOffer, (supplyOf(provider)));
        (bool success, bytes memory answer) =
            address(market).staticcall(withWord(data, index, wordAt(data, index) | excess));
        if (success) {
            OfferHash clean = market.hashProviderOffer(supplyOf(provider));
            assertNotEq(abi.decode(answer, (bytes32)), OfferHash.unwrap(clean));
        }
    }

    /// @dev In a match such an offer is passed over by its reason, and its neighbour is placed.
    function test_AFillWithExcessBitsIsSkipped() public {
        Provider memory other = fundedProvider(2);
        Provider[] memory providers = new Provider[](2);
        ProviderOffer[] memory supplies = new ProviderOffer[](2);
        (providers[0], providers[1]) = (provider, other);
        (supplies[0], supplies[1]) = (supplyOf(provider), supplyOf(other));
        supplies[0].maxEpochs = 0x7777;
        Match[] memory matches = new Match[](1);
        matches[0] = signedMatch(demandOf(2), providers, supplies);
        bytes memory data = abi.encodeCall(market.matchOffers, (matches));
        assertEq(replaceWord(data, 0x7777, (1 << 32) | 0x7777), 1);
        vm.recordLogs();
        (bool success, bytes memory answer) = send(stranger, data);
        assertTrue(success);
        assertEq(abi.decode(answer, (uint256)), 1, "the other one is opened");
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs[0].topics[0], IMarketEvents.FillSkipped.selector);
        assertEq(abi.decode(logs[0].data, (uint8)), uint8(Reason.ProviderOfferMalformed));
    }

    /// @dev Puts `next` in the place of each word behind the selector that is `old`.
    function replaceWord(bytes memory data, uint256 old, uint256 next) internal pure returns (uint256 count) {
        for (uint256 place = 0x24; place + 32 <= data.length + 32; place += 32) {
            uint256 word;
            assembly {
                word := mload(add(data, place))
            }
            if (word != old) continue;
            ++count;
            assembly {
                mstore(add(data, place), next)
            }
        }
    }

    // --- There and back ---------------------------------------------------------------------------------------------

    function typed(bytes32 structHash) internal view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", market.domainSeparator(), structHash));
    }

    /// @dev The event carries `abi.encode` of the offer, under the hash that forge makes of the same bytes.
    function assertLogged(bytes memory encoded, string memory typeName, bytes32 selector, address indexed_) internal {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs.length, 1);
        assertEq(logs[0].topics.length, 3);
        assertEq(logs[0].topics[0], selector);
        assertEq(logs[0].topics[1], typed(vm.eip712HashStruct(typeName, encoded)), "hash");
        assertEq(logs[0].topics[2], bytes32(uint256(uint160(indexed_))), "indexed");
        assertEq(logs[0].data, encoded, "data");
    }

    function testFuzz_ProviderOffersAreLoggedAsEncoded(ProviderOffer memory offer, uint16 length) public {
        vm.assume(offer.provider != address(0) && offer.agent != address(0) && offer.payout != address(0));
        offer.region = Region.wrap("eudefra1");
        offer.milliCpu = uint32(bound(offer.milliCpu, 1, (1 << 30) - 1));
        offer.memoryMib = uint32(bound(offer.memoryMib, 1, (1 << 30) - 1));
        offer.pricePerVcpuEpoch >>= 1;
        offer.pricePerGibEpoch >>= 1;
        offer.validUntil = uint64(bound(offer.validUntil, block.timestamp, type(uint64).max));
        offer.endpoint = string(letters(bound(length, 0, 512)));
        vm.recordLogs();
        vm.prank(offer.provider);
        market.postProviderOffer(offer);
        assertLogged(abi.encode(offer), PROVIDER_TYPE, IMarketEvents.ProviderOfferOpened.selector, offer.agent);
    }

    function testFuzz_DeveloperOffersAreLoggedAsEncoded(DeveloperOffer memory offer, uint16 length, uint8 regions)
        public
    {
        vm.assume(offer.developer != address(0) && offer.artifact != 0);
        offer.milliCpu = uint32(bound(offer.milliCpu, 1, (1 << 20) - 1));
        offer.memoryMib = uint32(bound(offer.memoryMib, 1, (1 << 20) - 1));
        offer.replicas = uint16(bound(offer.replicas, 1, 100));
        offer.minReplicas = uint16(bound(offer.minReplicas, 1, offer.replicas));
        offer.maxPricePerEpoch >>= 16;
        offer.epochs = uint32(bound(offer.epochs, 1, type(uint32).max));
        offer.prepaidEpochs = uint32(bound(offer.prepaidEpochs, MIN_PREPAID, type(uint16).max));
        offer.validUntil = uint64(bound(offer.validUntil, block.timestamp, type(uint64).max));
        offer.regions = new Region[](bound(regions, 0, 16));
        for (uint256 i = 0; i < offer.regions.length; ++i) {
            offer.regions[i] = i % 2 == 0 ? Region.wrap("eude") : Region.wrap("naussfo1");
        }
        offer.allow = shortened(offer.allow);
        offer.deny = shortened(offer.deny);
        offer.artifactUrl = string(letters(bound(length, 0, 512)));
        vm.recordLogs();
        vm.prank(offer.developer);
        market.postDeveloperOffer(offer);
        assertLogged(abi.encode(offer), DEVELOPER_TYPE, IMarketEvents.DeveloperOfferOpened.selector, offer.developer);
    }

    function shortened(address[] memory list) internal pure returns (address[] memory) {
        if (list.length <= 32) return list;
        assembly {
            mstore(list, 32)
        }
        return list;
    }

    /// @dev A first match logs the same as posting does, for every length of the texts around a word.
    function test_AMatchLogsOffersAsEncoded() public {
        for (uint64 length = 0; length < 66; ++length) {
            DeveloperOffer memory demand = fullDemand();
            ProviderOffer memory supply = supplyOf(provider);
            (demand.nonce, supply.nonce) = (length, length);
            demand.artifactUrl = string(letters(length));
            supply.endpoint = string(letters(65 - length));
            Match memory item = signedMatch(demand, provider, supply);
            vm.recordLogs();
            assertEq(submit(item), 1);
            Vm.Log[] memory logs = vm.getRecordedLogs();
            assertEq(logs.length, 3);
            assertEq(logs[0].topics[1], OfferHash.unwrap(market.hashDeveloperOffer(demand)));
            assertEq(logs[0].data, abi.encode(demand));
            assertEq(logs[1].topics[1], OfferHash.unwrap(market.hashProviderOffer(supply)));
            assertEq(logs[1].data, abi.encode(supply));
        }
    }
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";
import {DealTerms, Terms} from "../src/libraries/DealTerms.sol";
import {Deal, DealWord} from "../src/libraries/DealWord.sol";
import {EpochBitmap} from "../src/libraries/EpochBitmap.sol";
import {Regions} from "../src/libraries/Regions.sol";
import {DealState, EndCause, Region} from "../src/types/Types.sol";

contract LibrariesTest is Test {
    using EpochBitmap for EpochBitmap.Bitmap;
    using Regions for Region;

    EpochBitmap.Bitmap internal bitmap;

    // --- EpochBitmap against a loop -----------------------------------------------------------------------------------

    function fill(uint256 seed, uint256 words) internal {
        for (uint256 word = 0; word < words; ++word) {
            uint256 bits = uint256(keccak256(abi.encode(seed, word)));
            // Dense, sparse and full words all occur.
            if (seed % 3 == 0) bits |= uint256(keccak256(abi.encode(seed, word, "more")));
            if (seed % 5 == 0) bits = word % 2 == 0 ? type(uint256).max : bits;
            bitmap.words[word] = bits;
        }
    }

    function testFuzz_CountIsThatOfALoop(uint256 seed, uint16 from, uint16 to) public {
        fill(seed, 4);
        from = from % 1024;
        to = to % 1025;
        uint256 expected;
        for (uint256 epoch = from; epoch < to; ++epoch) {
            if (bitmap.get(epoch)) ++expected;
        }
        assertEq(bitmap.count(from, to), expected);
    }

    function testFuzz_RunEndIsThatOfALoop(uint256 seed, uint16 from, uint16 to) public {
        fill(seed, 4);
        from = from % 1024;
        to = to % 1025;
        uint256 expected = from;
        while (expected < to && bitmap.get(expected)) {
            ++expected;
        }
        assertEq(bitmap.runEnd(from, to), expected);
    }

    function testFuzz_EndOfNthIsThatOfALoop(uint256 seed, uint16 from, uint16 to, uint16 nth) public {
        fill(seed, 4);
        from = from % 1024;
        to = uint16(bound(to, from, 1024));
        nth = nth % 600;
        uint256 left = nth;
        uint256 expected = from;
        while (left > 0 && expected < to) {
            if (bitmap.get(expected)) --left;
            ++expected;
        }
        assertEq(bitmap.endOfNth(from, to, nth), expected);
        if (left == 0) assertEq(bitmap.count(from, expected), nth);
    }

    function testFuzz_SetSaysWhetherItWasSet(uint32 epoch) public {
        assertFalse(bitmap.set(epoch));
        assertTrue(bitmap.get(epoch));
        assertTrue(bitmap.set(epoch));
        assertEq(bitmap.count(epoch, uint256(epoch) + 1), 1);
    }

    // --- Deals as words and as code -----------------------------------------------------------------------------------

    function testFuzz_DealSurvivesItsWord(
        uint64 locked,
        uint32[4] memory epochs,
        uint40 termsNumber,
        uint8 termsIndex,
        uint8 state,
        uint8 cause
    ) public pure {
        Deal memory item = Deal({
            locked: locked,
            settledUntil: epochs[0],
            endEpoch: epochs[1],
            unfundedSince: epochs[2],
            fundedSince: epochs[3],
            termsNumber: termsNumber,
            termsIndex: termsIndex,
            state: DealState(state % 4),
            cause: EndCause(cause % 6)
        });
        assertEq(keccak256(abi.encode(DealWord.unpack(DealWord.pack(item)))), keccak256(abi.encode(item)));
    }

    function test_AnEmptyWordIsNoDeal() public pure {
        assertEq(uint8(DealWord.unpack(0).state), uint8(DealState.None));
    }

    function testFuzz_TermsSurviveTheirCode(Terms memory first, Terms memory second) public {
        // One match has one developer.
        second.developerOffer = first.developerOffer;
        second.developer = first.developer;
        second.milliCpu = first.milliCpu;
        second.memoryMib = first.memoryMib;
        second.startEpoch = first.startEpoch;
        second.prepaidEpochs = first.prepaidEpochs;
        uint256 number = vm.getNonce(address(this));
        DealTerms.write(bytes.concat(DealTerms.head(first), DealTerms.entry(first), DealTerms.entry(second)), number);
        assertEq(keccak256(abi.encode(DealTerms.read(number, 0))), keccak256(abi.encode(first)));
        assertEq(keccak256(abi.encode(DealTerms.read(number, 1))), keccak256(abi.encode(second)));
    }

    function test_TermsAtAnotherNumberAreRefused() public {
        uint256 number = vm.getNonce(address(this));
        vm.expectPartialRevert(DealTerms.TermsMisplaced.selector);
        this.writeEmpty(number + 1);
    }

    function writeEmpty(uint256 number) external {
        Terms memory terms;
        DealTerms.write(DealTerms.head(terms), number);
    }

    // --- Regions ------------------------------------------------------------------------------------------------------

    function test_WellFormedRegions() public pure {
        assertTrue(Region.wrap("eu").isWellFormed());
        assertTrue(Region.wrap("eude").isWellFormed());
        assertTrue(Region.wrap("eudef").isWellFormed());
        assertTrue(Region.wrap("eudefra1").isWellFormed());
        assertFalse(Region.wrap(0).isWellFormed());
        assertFalse(Region.wrap("e").isWellFormed());
        assertFalse(Region.wrap("eud").isWellFormed());
        assertFalse(Region.wrap(0x6575000000000001).isWellFormed());
        assertFalse(Region.wrap(0x0075646500000000).isWellFormed());
        assertFalse(Region.wrap("eu").namesCountry());
        assertTrue(Region.wrap("eude").namesCountry());
    }

    function test_PrefixesContain() public pure {
        assertTrue(Region.wrap("eu").contains(Region.wrap("eudefra1")));
        assertTrue(Region.wrap("eude").contains(Region.wrap("eude")));
        assertTrue(Region.wrap("eudefra1").contains(Region.wrap("eudefra1")));
        assertFalse(Region.wrap("eudefra1").contains(Region.wrap("eude")));
        assertFalse(Region.wrap("eude").contains(Region.wrap("eufr")));
        assertFalse(Region.wrap("na").contains(Region.wrap("eude")));
    }

    function testFuzz_ContainsIsThatOfALoop(bytes8 text, bytes8 place, uint8 length) public pure {
        length = uint8(bound(length, 2, 8));
        bytes8 masked;
        for (uint256 i = 0; i < length; ++i) {
            bytes8 letter = text[i] == 0 ? bytes8("a") : bytes8(text[i]);
            masked |= letter >> (8 * i);
        }
        bool expected = true;
        for (uint256 i = 0; i < length; ++i) {
            if (masked[i] != place[i]) expected = false;
        }
        assertEq(Region.wrap(masked).contains(Region.wrap(place)), expected);
        bytes8 inside = masked | (length == 8 ? bytes8(0) : place >> (8 * length));
        assertTrue(Region.wrap(masked).contains(Region.wrap(inside)));
    }
}

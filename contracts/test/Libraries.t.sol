// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";
import {Deal, DealWord} from "../src/libraries/DealWord.sol";
import {EpochBitmap} from "../src/libraries/EpochBitmap.sol";
import {DemandWord} from "../src/libraries/DemandWord.sol";
import {SupplyWord} from "../src/libraries/SupplyWord.sol";
import {Regions} from "../src/libraries/Regions.sol";
import {DealState, EndCause, Region} from "../src/types/Types.sol";

contract LibrariesTest is Test {
    using EpochBitmap for EpochBitmap.Bitmap;
    using Regions for Region;

    uint256 internal constant SPAN = EpochBitmap.SPAN;
    uint256 internal constant REACH = EpochBitmap.REACH;
    uint256 internal constant EPOCHS = 6 * SPAN;

    EpochBitmap.Bitmap internal bitmap;
    mapping(uint256 epoch => bool) internal wanted;

    // --- EpochBitmap against a loop -----------------------------------------------------------------------------------

    /// @dev Attests as agents do: mostly in order, some late within reach, with holes, long silences and full words.
    function fill(uint256 seed) internal {
        uint256 missed = seed % 7;
        for (uint256 open = 1; open <= EPOCHS; ++open) {
            uint256 dice = uint256(keccak256(abi.encode(seed, open)));
            uint256 word = (open - 1) / SPAN;
            // Whole words of silence, and words without a hole.
            if ((seed >> (8 + word)) & 3 == 0) continue;
            if ((seed >> (8 + word)) & 3 != 3 && dice % 8 < missed) continue;
            set(open - 1, open);
            uint256 late = (dice >> 16) % REACH;
            if ((dice >> 8) % 5 == 0 && open > late && !wanted[open - 1 - late]) set(open - 1 - late, open);
        }
    }

    function set(uint256 epoch, uint256 open) internal {
        assertFalse(bitmap.set(epoch, open));
        wanted[epoch] = true;
    }

    function testFuzz_CountIsThatOfALoop(uint256 seed, uint16 from, uint16 to) public {
        fill(seed);
        from = uint16(from % EPOCHS);
        to = uint16(to % (EPOCHS + 1));
        uint256 expected;
        for (uint256 epoch = from; epoch < to; ++epoch) {
            assertEq(bitmap.get(epoch), wanted[epoch]);
            if (wanted[epoch]) ++expected;
        }
        assertEq(bitmap.count(from, to), expected);
    }

    function testFuzz_IsFullIsThatOfALoop(uint256 seed, uint16 from, uint16 to) public {
        fill(seed);
        from = uint16(from % EPOCHS);
        to = uint16(bound(to, from + 1, EPOCHS));
        bool expected = true;
        for (uint256 epoch = from; epoch < to; ++epoch) {
            expected = expected && wanted[epoch];
        }
        assertEq(bitmap.isFull(from, to), expected);
    }

    function testFuzz_RunEndIsThatOfALoop(uint256 seed, uint16 from, uint16 to) public {
        fill(seed);
        from = uint16(from % EPOCHS);
        to = uint16(to % (EPOCHS + 1));
        uint256 expected = from;
        while (expected < to && wanted[expected]) {
            ++expected;
        }
        assertEq(bitmap.runEnd(from, to), expected);
    }

    function testFuzz_EndOfNthIsThatOfALoop(uint256 seed, uint16 from, uint16 to, uint16 nth) public {
        fill(seed);
        from = uint16(from % EPOCHS);
        to = uint16(bound(to, from, EPOCHS));
        nth = nth % 600;
        uint256 left = nth;
        uint256 expected = from;
        while (left > 0 && expected < to) {
            if (wanted[expected]) --left;
            ++expected;
        }
        assertEq(bitmap.endOfNth(from, to, nth), expected);
        if (left == 0) assertEq(bitmap.count(from, expected), nth);
    }

    function testFuzz_SetSaysWhetherItWasSet(uint32 epoch) public {
        uint256 open = uint256(epoch) + 1;
        assertFalse(bitmap.set(epoch, open));
        assertTrue(bitmap.get(epoch));
        assertTrue(bitmap.set(epoch, open));
        assertEq(bitmap.count(epoch, open), 1);
    }

    function test_ALateEpochIsCountedByTheWordThatHasBegun() public {
        assertFalse(bitmap.set(SPAN - 3, SPAN - 2));
        assertFalse(bitmap.set(SPAN, SPAN + 1));
        assertFalse(bitmap.set(SPAN - 1, SPAN + 2));
        assertEq(bitmap.count(0, SPAN + 1), 3);
        assertEq(bitmap.count(SPAN - 1, SPAN + 1), 2);
    }

    function test_ALateEpochMayFillAWordThatWasSilentUntilTheNextHadBegun() public {
        assertFalse(bitmap.set(SPAN, SPAN + 1));
        assertFalse(bitmap.set(SPAN - 1, SPAN + 2));
        assertFalse(bitmap.set(SPAN + 1, SPAN + 2));
        assertEq(bitmap.count(0, 2 * SPAN), 3);
        assertEq(bitmap.count(SPAN, 2 * SPAN), 2);
        assertEq(bitmap.count(0, SPAN), 1);
    }

    // --- Words of storage ---------------------------------------------------------------------------------------------

    function testFuzz_DealSurvivesItsWord(
        uint64 locked,
        uint32[3] memory epochs,
        uint48 price,
        uint256 offerNumber,
        uint8 fundedFor,
        uint8 state,
        uint8 cause,
        bool isChanged
    ) public pure {
        Deal memory item = Deal({
            locked: locked,
            settledUntil: epochs[0],
            endEpoch: epochs[1],
            unfundedSince: epochs[2],
            price: price,
            offerNumber: offerNumber % (1 << 33),
            fundedFor: fundedFor,
            state: DealState(state % 4),
            cause: EndCause(cause % 7),
            isChanged: isChanged
        });
        Deal memory read;
        DealWord.unpack(DealWord.pack(item), read);
        assertEq(keccak256(abi.encode(read)), keccak256(abi.encode(item)));
    }

    function test_AnEmptyWordIsNoDeal() public pure {
        Deal memory read;
        DealWord.unpack(0, read);
        assertEq(uint8(read.state), uint8(DealState.None));
    }

    function testFuzz_SupplySurvivesItsWord(
        address agent,
        uint256 milliCpu,
        uint256 memoryMib,
        uint256 number,
        bool hasPayout
    ) public pure {
        milliCpu %= 1 << 30;
        memoryMib %= 1 << 30;
        number %= 1 << 33;
        uint256 word = SupplyWord.opened(agent, hasPayout) | SupplyWord.CANCELLED;
        word = SupplyWord.reserve(SupplyWord.numbered(word, number), milliCpu, memoryMib);
        assertEq(SupplyWord.agent(word), agent);
        assertEq(SupplyWord.usedMilliCpu(word), milliCpu);
        assertEq(SupplyWord.usedMemoryMib(word), memoryMib);
        assertEq(SupplyWord.number(word), number);
        assertEq(word & SupplyWord.PAYOUT != 0, hasPayout);
        assertTrue(word & SupplyWord.KNOWN != 0 && word & SupplyWord.CANCELLED != 0);
        word = SupplyWord.release(word, milliCpu, memoryMib);
        assertEq(SupplyWord.usedMilliCpu(word) + SupplyWord.usedMemoryMib(word), 0);
        assertEq(SupplyWord.number(word), number);
    }

    function testFuzz_DemandSurvivesItsWord(
        address developer,
        uint16 prepaidEpochs,
        uint256 milliCpu,
        uint256 memoryMib,
        uint8 live,
        uint32 endEpoch
    ) public pure {
        milliCpu %= 1 << 20;
        memoryMib %= 1 << 20;
        uint256 word = DemandWord.opened(developer, prepaidEpochs, milliCpu, memoryMib);
        assertEq(DemandWord.liveReplicas(word) + DemandWord.endEpoch(word), 0);
        word = DemandWord.placed(DemandWord.placed(word, 127, type(uint32).max), live % 128, endEpoch);
        assertEq(DemandWord.developer(word), developer);
        assertEq(DemandWord.prepaidEpochs(word), prepaidEpochs);
        assertEq(DemandWord.milliCpu(word), milliCpu);
        assertEq(DemandWord.memoryMib(word), memoryMib);
        assertEq(DemandWord.liveReplicas(word), live % 128);
        assertEq(DemandWord.endEpoch(word), endEpoch);
    }

    function testFuzz_AnOpenedDealIsItsWord(uint64 locked, uint32 start, uint32 end, uint48 price, uint256 number)
        public
        pure
    {
        Deal memory item;
        item.locked = locked;
        item.settledUntil = start;
        item.endEpoch = end;
        item.price = price;
        item.offerNumber = number % (1 << 33);
        item.state = DealState.Active;
        assertEq(DealWord.opened(locked, start, end, price, item.offerNumber), DealWord.pack(item));
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

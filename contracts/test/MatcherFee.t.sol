// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Vm} from "forge-std/Vm.sol";
import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {DealId, DeveloperOffer, Match, OfferHash, ProviderOffer, Reason} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";

/// @dev What a developer pays to whoever places its replicas.
contract MatcherFeeTest is Actions {
    uint64 internal constant FEE = 12_345;
    uint256 internal constant LOCK = uint256(PRICE) * PREPAID;

    address internal matcher = makeAddr("matcher");
    Provider[] internal providers;

    function setUp() public override {
        super.setUp();
        for (uint256 i = 0; i < 3; ++i) {
            providers.push(fundedProvider(i));
            watch(providers[i]);
        }
        accounts.push(developer);
        accounts.push(matcher);
        accounts.push(stranger);
    }

    function paidDemand(uint16 replicas) internal view returns (DeveloperOffer memory demand) {
        demand = demandOf(replicas);
        demand.matcherFee = FEE;
    }

    function matchAll(DeveloperOffer memory demand) internal returns (Match memory) {
        Provider[] memory hosts = providers;
        ProviderOffer[] memory supplies = new ProviderOffer[](hosts.length);
        for (uint256 i = 0; i < hosts.length; ++i) {
            supplies[i] = supplyOf(hosts[i]);
            deals.push(refTo(demand, supplies[i]));
        }
        return signedMatch(demand, hosts, supplies);
    }

    function submitBy(address sender, Match memory item) internal returns (uint256) {
        Match[] memory matches = new Match[](1);
        matches[0] = item;
        vm.prank(sender);
        return market.matchOffers(matches);
    }

    /// @dev Leaves the developer this much.
    function leave(uint256 amount) internal {
        drain(developer);
        if (amount != 0) fund(developer, amount);
    }

    // --- Who is paid ------------------------------------------------------------------------------------------------

    function test_WhoSendsTheMatchIsPaid() public {
        Match memory item = matchAll(paidDemand(1));
        OfferHash offerHash = market.hashDeveloperOffer(item.developerOffer);
        vm.expectEmit(address(market));
        emit IMarketEvents.MatcherPaid(offerHash, matcher, FEE);
        assertEq(submitBy(matcher, item), 1);
        assertEq(free(matcher), FEE);
        assertEq(free(developer), START_FREE - LOCK - FEE);
        assertConserved();
        vm.prank(matcher);
        market.withdraw(FEE, matcher);
        assertEq(token.balanceOf(matcher), FEE);
    }

    function test_TheNamedMatcherAloneIsPaid() public {
        DeveloperOffer memory demand = paidDemand(1);
        demand.matcher = matcher;
        Match memory item = matchAll(demand);
        expectMatchSkipped(item, Reason.MatcherNotNamed);
        assertEq(submitBy(stranger, item), 0);
        assertEq(free(stranger), 0);
        assertEq(submitBy(matcher, item), 1);
        assertEq(free(matcher), FEE);
    }

    function test_TheDeveloperMayMatchByItself() public {
        leave(LOCK + FEE - 1);
        Match memory item = matchAll(paidDemand(1));
        assertEq(submitBy(developer, item), 0, "it must have the fee even so");
        fund(developer, 1);
        assertEq(submitBy(developer, item), 1);
        assertEq(free(developer), FEE);
        assertConserved();
    }

    function test_AProviderMayMatchItself() public {
        address host = providers[0].account;
        assertEq(submitBy(host, matchAll(paidDemand(1))), 1);
        assertEq(free(host), START_FREE - BOND + FEE);
        assertConserved();
    }

    function test_TheFeeDoesNotPayTheBondOfItsOwnMatch() public {
        address host = providers[0].account;
        drain(host);
        fund(host, BOND - 1);
        Match memory item = signedMatch(paidDemand(1), providers[0], supplyOf(providers[0]));
        expectFillSkipped(item, 0, Reason.BondTooLow);
        assertEq(submitBy(host, item), 0);
        assertEq(free(host), BOND - 1);
    }

    // --- How much ---------------------------------------------------------------------------------------------------

    function test_EachReplicaPaysOnce() public {
        assertEq(submitBy(matcher, matchAll(paidDemand(3))), 3);
        assertEq(free(matcher), 3 * FEE);
        assertEq(free(developer), START_FREE - 3 * (LOCK + FEE));
        assertConserved();
    }

    function test_ARefillPaysAgain() public {
        assertEq(submitBy(matcher, matchAll(paidDemand(1))), 1);
        cancel(deals[0]);
        nextEpochs(1 + WINDOW);
        market.closeDeal(refOf(deals[0]));
        Match memory item = signedMatch(paidDemand(1), providers[1], supplyOf(providers[1]));
        assertEq(submitBy(stranger, item), 1);
        assertEq(free(stranger), FEE);
        assertEq(free(matcher), FEE, "what was paid stays paid");
        assertConserved();
    }

    function test_WithoutAFeeNothingIsSaid() public {
        Match memory item = matchAll(demandOf(2));
        vm.recordLogs();
        assertEq(submitBy(matcher, item), 2);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            assertNotEq(logs[i].topics[0], IMarketEvents.MatcherPaid.selector);
        }
        assertEq(free(matcher), 0);
    }

    function test_NothingPlacedPaysNothing() public {
        DeveloperOffer memory demand = paidDemand(1);
        demand.features = 1 << 63;
        assertEq(submitBy(matcher, matchAll(demand)), 0);
        demand = paidDemand(4);
        demand.minReplicas = 4;
        assertEq(submitBy(matcher, matchAll(demand)), 0, "three hosts are too few");
        assertEq(free(matcher), 0);
        assertEq(free(developer), START_FREE);
    }

    function test_OnceFullNothingIsPaid() public {
        Match memory item = matchAll(paidDemand(1));
        submitBy(matcher, item);
        assertEq(submitBy(stranger, item), 0);
        assertEq(free(stranger), 0);
        assertEq(free(developer), START_FREE - LOCK - FEE);
    }

    // --- Money ------------------------------------------------------------------------------------------------------

    function test_LockAndFeeMustBeThereToTheAtom() public {
        leave(LOCK + FEE - 1);
        Match memory item = signedMatch(paidDemand(1), providers[0], supplyOf(providers[0]));
        assertReason(market.checkFill(item.developerOffer, item.fills[0].offer), Reason.FundsTooLow);
        expectFillSkipped(item, 0, Reason.FundsTooLow);
        assertEq(submitBy(matcher, item), 0);
        fund(developer, 1);
        assertReason(market.checkFill(item.developerOffer, item.fills[0].offer), Reason.None);
        assertEq(submitBy(matcher, item), 1);
        assertEq(free(developer), 0);
    }

    function test_MoneyForTwoOfThree() public {
        leave(3 * (LOCK + FEE) - 1);
        Match memory item = matchAll(paidDemand(3));
        expectFillSkipped(item, 2, Reason.FundsTooLow);
        assertEq(submitBy(matcher, item), 2);
        assertEq(free(matcher), 2 * FEE);
        assertEq(free(developer), LOCK + FEE - 1);
    }

    function test_TheHighestFeeIsOnlyTooMuch() public {
        DeveloperOffer memory demand = paidDemand(3);
        demand.matcherFee = type(uint64).max;
        Match memory item = matchAll(demand);
        for (uint256 i = 0; i < 3; ++i) {
            expectFillSkipped(item, i, Reason.FundsTooLow);
        }
        assertEq(submitBy(matcher, item), 0);
    }

    function test_AFeeForADealThatCostsNothing() public {
        ProviderOffer memory supply = supplyOf(providers[0]);
        (supply.pricePerVcpuEpoch, supply.pricePerGibEpoch) = (0, 0);
        leave(FEE);
        assertEq(submitBy(matcher, signedMatch(paidDemand(1), providers[0], supply)), 1);
        assertEq(free(matcher), FEE);
        assertEq(free(developer), 0);
    }

    /// @dev As many replicas as there is money for are placed, each pays its fee, and every atom is somewhere.
    function testFuzz_AsManyAsThereIsMoneyFor(uint64 fee, uint256 money, uint8 replicas) public {
        replicas = uint8(bound(replicas, 1, 3));
        fee = uint64(bound(fee, 0, 10 * LOCK));
        money = bound(money, 0, 4 * (LOCK + fee));
        leave(money);
        DeveloperOffer memory demand = demandOf(replicas);
        demand.matcherFee = fee;
        uint256 affordable = money / (LOCK + fee);
        uint256 placed = submitBy(matcher, matchAll(demand));
        assertEq(placed, affordable < replicas ? affordable : replicas);
        assertEq(free(matcher), placed * fee);
        assertEq(free(developer), money - placed * (LOCK + fee));
        uint256 bonds = placed * BOND;
        uint256 ofProviders;
        for (uint256 i = 0; i < providers.length; ++i) {
            ofProviders += free(providers[i].account);
        }
        assertEq(ofProviders, providers.length * START_FREE - bonds);
        assertEq(
            token.balanceOf(address(market)), ofProviders + bonds + placed * LOCK + free(matcher) + free(developer)
        );
    }
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {Vm} from "forge-std/Vm.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {
    DealId,
    DealState,
    DealView,
    DeveloperOffer,
    EndCause,
    Epoch,
    Match,
    OfferHash,
    ProviderOffer,
    Reason,
    Region
} from "../src/types/Types.sol";
import {Base} from "./Base.t.sol";
import {BombWallet, BurningWallet, ShortWallet, Wallet} from "./support/Wallets.sol";

contract MatchTest is Base {
    Provider internal provider;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
    }

    function many(uint256 count) internal returns (Provider[] memory providers, ProviderOffer[] memory supplies) {
        providers = new Provider[](count);
        supplies = new ProviderOffer[](count);
        for (uint256 i = 0; i < count; ++i) {
            providers[i] = fundedProvider(i + 11);
            supplies[i] = supplyOf(providers[i]);
        }
    }

    /// @dev The one fill of a match is skipped for `reason`, and with it the match; the view says the same.
    function expectRefused(Match memory item, Reason reason) internal {
        assertReason(market.checkFill(item.developerOffer, item.fills[0].offer), reason);
        expectFillSkipped(item, 0, reason);
        expectMatchSkipped(item, Reason.TooFewReplicas);
        assertEq(submit(item), 0);
    }

    function expectDemandRefused(Match memory item, Reason reason) internal {
        assertReason(market.checkFill(item.developerOffer, item.fills[0].offer), reason);
        expectMatchSkipped(item, reason);
        assertEq(submit(item), 0);
    }

    // --- A deal -----------------------------------------------------------------------------------------------------

    function test_OpensADealAtTheProvidersAsk() public {
        nextEpochs(3);
        DeveloperOffer memory demand = demandOf(1);
        ProviderOffer memory supply = supplyOf(provider);
        Match memory item = signedMatch(demand, provider, supply);
        OfferHash demandHash = market.hashDeveloperOffer(demand);
        OfferHash supplyHash = market.hashProviderOffer(supply);
        DealId dealId = market.dealIdOf(demandHash, provider.account);
        assertReason(market.checkFill(demand, supply), Reason.None);
        vm.expectEmit(address(market));
        emit IMarketEvents.DeveloperOfferOpened(demandHash, developer, demand);
        vm.expectEmit(address(market));
        emit IMarketEvents.ProviderOfferOpened(supplyHash, provider.agent, supply);
        vm.expectEmit(address(market));
        emit IMarketEvents.DealOpened(
            dealId, demandHash, supplyHash, PRICE, Epoch.wrap(4), Epoch.wrap(24), PREPAID * PRICE
        );
        vm.prank(stranger);
        assertEq(submit(item), 1);
        assertEq(free(developer), START_FREE - PREPAID * PRICE);
        assertEq(free(provider.account), START_FREE - BOND);
        (uint256 milliCpu, uint256 memoryMib) = usedOf(supply);
        assertEq(milliCpu, 500);
        assertEq(memoryMib, 512);
        (uint16 live, Epoch end) = placementOf(demandHash);
        assertEq(live, 1);
        assertEpoch(end, 24, "end");
    }

    function test_TheDealShowsAllItsTerms() public {
        nextEpochs(3);
        DealId dealId = openDeal(provider);
        DealView memory expected = DealView({
            dealId: dealId,
            developerOffer: market.hashDeveloperOffer(demandOf(1)),
            providerOffer: market.hashProviderOffer(supplyOf(provider)),
            developer: developer,
            provider: provider.account,
            agent: provider.agent,
            payout: provider.payout,
            milliCpu: 500,
            memoryMib: 512,
            pricePerEpoch: PRICE,
            priceFrom: Epoch.wrap(0),
            oldPricePerEpoch: 0,
            changes: 0,
            endEpoch: Epoch.wrap(24),
            settledUntil: Epoch.wrap(4),
            paidUntil: Epoch.wrap(8),
            locked: PREPAID * PRICE,
            bond: BOND,
            unfundedSince: Epoch.wrap(0),
            state: DealState.Active,
            cause: EndCause.None
        });
        assertEq(keccak256(abi.encode(deal(dealId))), keccak256(abi.encode(expected)));
    }

    function test_ADealThatWasNeverOpenedShowsNothing() public view {
        DealView memory nothing;
        assertEq(keccak256(abi.encode(deal(DealId.wrap(0)))), keccak256(abi.encode(nothing)));
    }

    function test_OffersAreOpenedOnceAndNeedNoSignatureAfterwards() public {
        (Provider[] memory providers, ProviderOffer[] memory supplies) = many(2);
        DeveloperOffer memory demand = demandOf(2);
        submit(signedMatch(demand, providers[0], supplies[0]));
        Match memory item = signedMatch(demand, providers[1], supplies[1]);
        item.developerSignature = "";
        vm.recordLogs();
        assertEq(submit(item), 1);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs.length, 2);
        assertEq(logs[0].topics[0], IMarketEvents.ProviderOfferOpened.selector);
        assertEq(logs[1].topics[0], IMarketEvents.DealOpened.selector);
        demand = demandOf(1);
        demand.nonce = 1;
        item = signedMatch(demand, providers[1], supplies[1]);
        item.fills[0].signature = "";
        assertEq(submit(item), 1);
    }

    function test_ShortTermLocksTheTermOnly() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.epochs = 3;
        demand.prepaidEpochs = 10;
        DealId dealId = openDeal(demand, provider);
        assertEq(deal(dealId).locked, 3 * PRICE);
        assertEpoch(deal(dealId).paidUntil, 4, "paidUntil");
    }

    function test_LongestTermEndsWithTheClock() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.epochs = type(uint32).max;
        DealId dealId = openDeal(demand, provider);
        assertEpoch(deal(dealId).endEpoch, type(uint32).max, "end");
    }

    // --- Several replicas -------------------------------------------------------------------------------------------

    function test_PreferenceIsRespectedUntilFull() public {
        (Provider[] memory providers, ProviderOffer[] memory supplies) = many(3);
        Match memory item = signedMatch(demandOf(2), providers, supplies);
        expectFillSkipped(item, 2, Reason.ReplicasFull);
        assertEq(submit(item), 2);
        OfferHash demandHash = market.hashDeveloperOffer(item.developerOffer);
        assertState(market.dealIdOf(demandHash, providers[0].account), DealState.Active, EndCause.None);
        assertState(market.dealIdOf(demandHash, providers[1].account), DealState.Active, EndCause.None);
        assertState(market.dealIdOf(demandHash, providers[2].account), DealState.None, EndCause.None);
        assertReason(market.checkFill(item.developerOffer, supplies[2]), Reason.ReplicasFull);
    }

    function test_ABadFillHarmsNoNeighbour() public {
        (Provider[] memory providers, ProviderOffer[] memory supplies) = many(3);
        supplies[1].region = Region.wrap("naus");
        Match memory item = signedMatch(demandOf(3), providers, supplies);
        expectFillSkipped(item, 1, Reason.RegionMismatch);
        assertEq(submit(item), 2);
        OfferHash demandHash = market.hashDeveloperOffer(item.developerOffer);
        DealView memory third = deal(market.dealIdOf(demandHash, providers[2].account));
        assertEq(third.provider, providers[2].account);
        assertEq(third.agent, providers[2].agent);
        assertEq(third.payout, providers[2].payout);
        assertEq(OfferHash.unwrap(third.providerOffer), OfferHash.unwrap(market.hashProviderOffer(supplies[2])));
    }

    function test_TooFewReplicasOpensNothing() public {
        (Provider[] memory providers, ProviderOffer[] memory supplies) = many(3);
        supplies[1].region = Region.wrap("naus");
        DeveloperOffer memory demand = demandOf(3);
        demand.minReplicas = 3;
        Match memory item = signedMatch(demand, providers, supplies);
        vm.recordLogs();
        assertEq(submit(item), 0);
        assertEq(vm.getRecordedLogs().length, 2);
        assertEq(free(developer), START_FREE);
        assertEq(free(providers[0].account), START_FREE);
        (uint16 live, Epoch end) = placementOf(market.hashDeveloperOffer(demand));
        assertEq(live, 0);
        assertEpoch(end, 0, "end");
    }

    function test_LiveReplicasCountForTheMinimum() public {
        (Provider[] memory providers, ProviderOffer[] memory supplies) = many(3);
        DeveloperOffer memory demand = demandOf(3);
        demand.minReplicas = 2;
        Provider[] memory firstTwo = new Provider[](2);
        ProviderOffer[] memory firstSupplies = new ProviderOffer[](2);
        (firstTwo[0], firstTwo[1]) = (providers[0], providers[1]);
        (firstSupplies[0], firstSupplies[1]) = (supplies[0], supplies[1]);
        assertEq(submit(signedMatch(demand, firstTwo, firstSupplies)), 2);
        assertEq(submit(signedMatch(demand, providers[2], supplies[2])), 1);
    }

    function test_RefillRunsToTheSameEnd() public {
        (Provider[] memory providers, ProviderOffer[] memory supplies) = many(2);
        DeveloperOffer memory demand = demandOf(2);
        submit(signedMatch(demand, providers[0], supplies[0]));
        nextEpochs(17);
        submit(signedMatch(demand, providers[1], supplies[1]));
        DealView memory second = deal(market.dealIdOf(market.hashDeveloperOffer(demand), providers[1].account));
        assertEpoch(second.settledUntil, 18, "start");
        assertEpoch(second.endEpoch, 21, "end");
        assertEq(second.locked, 3 * PRICE);
    }

    function test_OneProviderHostsOneReplica() public {
        Provider[] memory twice = new Provider[](2);
        ProviderOffer[] memory supplies = new ProviderOffer[](2);
        (twice[0], twice[1]) = (provider, provider);
        (supplies[0], supplies[1]) = (supplyOf(provider), supplyOf(provider));
        supplies[1].nonce = 1;
        Match memory item = signedMatch(demandOf(2), twice, supplies);
        expectFillSkipped(item, 1, Reason.AlreadyHosting);
        assertEq(submit(item), 1);
        // Nor in a later match, nor after the deal has ended.
        item = signedMatch(demandOf(2), provider, supplies[1]);
        assertReason(market.checkFill(item.developerOffer, supplies[1]), Reason.AlreadyHosting);
        expectFillSkipped(item, 0, Reason.AlreadyHosting);
        assertEq(submit(item), 0);
    }

    function test_OneBadMatchHarmsNoOther() public {
        (Provider[] memory providers, ProviderOffer[] memory supplies) = many(2);
        Match[] memory matches = new Match[](3);
        matches[0] = signedMatch(demandOf(1), providers[0], supplies[0]);
        DeveloperOffer memory second = demandOf(1);
        second.nonce = 1;
        matches[1] = signedMatch(second, providers[0], supplies[0]);
        matches[1].developerSignature = hex"00";
        second.nonce = 2;
        matches[2] = signedMatch(second, providers[1], supplies[1]);
        expectMatchSkipped(matches[1], Reason.DeveloperSignatureInvalid);
        assertEq(market.matchOffers(matches), 2);
    }

    // --- The developer's side ---------------------------------------------------------------------------------------

    function test_DemandIsCheckedAtEveryMatch() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.artifact = 0;
        expectDemandRefused(signedMatch(demand, provider, supplyOf(provider)), Reason.DeveloperOfferMalformed);
        demand = demandOf(1);
        demand.validUntil = uint64(block.timestamp);
        Match memory item = signedMatch(demand, provider, supplyOf(provider));
        vm.warp(block.timestamp + 1);
        expectDemandRefused(item, Reason.DeveloperOfferExpired);
    }

    function test_OnlyTheNamedMatcherMatches() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.matcher = operator;
        Match memory item = signedMatch(demand, provider, supplyOf(provider));
        expectDemandRefused(item, Reason.MatcherNotNamed);
        vm.prank(operator);
        Match[] memory matches = new Match[](1);
        matches[0] = item;
        assertEq(market.matchOffers(matches), 1);
    }

    function test_NoRefillInTheLastEpoch() public {
        (Provider[] memory providers, ProviderOffer[] memory supplies) = many(2);
        DeveloperOffer memory demand = demandOf(2);
        submit(signedMatch(demand, providers[0], supplies[0]));
        Match memory item = signedMatch(demand, providers[1], supplies[1]);
        toEpoch(20);
        expectDemandRefused(item, Reason.TermOver);
        toEpoch(19);
        assertEq(submit(item), 1);
    }

    function test_SignatureOfSomebodyElseIsRefused() public {
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        item.developerSignature = item.fills[0].signature;
        expectMatchSkipped(item, Reason.DeveloperSignatureInvalid);
        assertEq(submit(item), 0);
        item = signedMatch(demandOf(1), provider, supplyOf(provider));
        item.fills[0].signature = item.developerSignature;
        expectFillSkipped(item, 0, Reason.ProviderSignatureInvalid);
        assertEq(submit(item), 0);
        item.fills[0].signature = "";
        expectFillSkipped(item, 0, Reason.ProviderSignatureInvalid);
        assertEq(submit(item), 0);
    }

    // --- The provider's side ----------------------------------------------------------------------------------------

    function test_SupplyIsCheckedAtEveryMatch() public {
        ProviderOffer memory supply = supplyOf(provider);
        supply.agent = address(0);
        expectRefused(signedMatch(demandOf(1), provider, supply), Reason.ProviderOfferMalformed);
        supply = supplyOf(provider);
        supply.validUntil = uint64(block.timestamp);
        Match memory item = signedMatch(demandOf(1), provider, supply);
        vm.warp(block.timestamp + 1);
        expectRefused(item, Reason.ProviderOfferExpired);
    }

    function test_AllowAndDeny() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.allow = new address[](1);
        demand.allow[0] = stranger;
        expectRefused(signedMatch(demand, provider, supplyOf(provider)), Reason.ProviderNotAllowed);
        demand.allow[0] = provider.account;
        demand.deny = demand.allow;
        expectRefused(signedMatch(demand, provider, supplyOf(provider)), Reason.ProviderDenied);
        demand.deny = new address[](0);
        assertEq(submit(signedMatch(demand, provider, supplyOf(provider))), 1);
    }

    function test_Regions() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.regions[0] = Region.wrap("eufr");
        expectRefused(signedMatch(demand, provider, supplyOf(provider)), Reason.RegionMismatch);
        demand.regions[0] = Region.wrap("eudefra2");
        expectRefused(signedMatch(demand, provider, supplyOf(provider)), Reason.RegionMismatch);
        demand.regions = new Region[](2);
        demand.regions[0] = Region.wrap("na");
        demand.regions[1] = Region.wrap("eu");
        assertEq(submit(signedMatch(demand, provider, supplyOf(provider))), 1);
        demand.regions = new Region[](0);
        demand.nonce = 1;
        assertEq(submit(signedMatch(demand, provider, supplyOf(provider))), 1);
    }

    function test_Features() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.features = 0x101;
        expectRefused(signedMatch(demand, provider, supplyOf(provider)), Reason.FeaturesMissing);
    }

    function test_LongestTerm() public {
        ProviderOffer memory supply = supplyOf(provider);
        supply.maxEpochs = TERM - 1;
        expectRefused(signedMatch(demandOf(1), provider, supply), Reason.TermTooLong);
        supply.maxEpochs = TERM;
        assertEq(submit(signedMatch(demandOf(1), provider, supply)), 1);
    }

    function test_CapacityIsSharedAndNeverExceeded() public {
        ProviderOffer memory supply = supplyOf(provider);
        supply.milliCpu = 1499;
        DeveloperOffer memory demand = demandOf(1);
        for (uint64 i = 0; i < 2; ++i) {
            demand.nonce = i;
            assertEq(submit(signedMatch(demand, provider, supply)), 1);
        }
        demand.nonce = 2;
        expectRefused(signedMatch(demand, provider, supply), Reason.CpuExceedsFree);
        supply.milliCpu = 1500;
        supply.memoryMib = 511;
        expectRefused(signedMatch(demand, provider, supply), Reason.MemoryExceedsFree);
    }

    function test_CapacityIsFullToTheLastUnit() public {
        ProviderOffer memory supply = supplyOf(provider);
        supply.milliCpu = 500;
        supply.memoryMib = 512;
        assertEq(submit(signedMatch(demandOf(1), provider, supply)), 1);
    }

    function test_PriceMayEqualTheMaximum() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.maxPricePerEpoch = PRICE - 1;
        expectRefused(signedMatch(demand, provider, supplyOf(provider)), Reason.PriceAboveMaximum);
        demand.maxPricePerEpoch = PRICE;
        assertEq(submit(signedMatch(demand, provider, supplyOf(provider))), 1);
    }

    function test_AskRoundsDown() public view {
        ProviderOffer memory supply = supplyOf(provider);
        supply.pricePerVcpuEpoch = 1;
        supply.pricePerGibEpoch = 1;
        assertEq(market.askOf(supply, 999, 0), 0);
        assertEq(market.askOf(supply, 1000, 1023), 1);
        assertEq(market.askOf(supply, 1000, 1024), 2);
    }

    function testFuzz_AskIsTheRoundedSum(uint32 milliCpu, uint32 memoryMib, uint64 cpuPrice, uint64 gibPrice)
        public
        view
    {
        ProviderOffer memory supply = supplyOf(provider);
        supply.pricePerVcpuEpoch = cpuPrice;
        supply.pricePerGibEpoch = gibPrice;
        uint256 exact = uint256(milliCpu) * cpuPrice * 1024 + uint256(memoryMib) * gibPrice * 1000;
        assertEq(market.askOf(supply, milliCpu, memoryMib), exact / 1_024_000);
    }

    function test_FundsMustCoverTheLock() public {
        vm.prank(developer);
        market.withdraw(START_FREE - PREPAID * PRICE + 1, developer);
        expectRefused(signedMatch(demandOf(1), provider, supplyOf(provider)), Reason.FundsTooLow);
        fund(developer, 1);
        assertEq(submit(signedMatch(demandOf(1), provider, supplyOf(provider))), 1);
        assertEq(free(developer), 0);
    }

    function test_FundsAreSharedByTheFillsOfAMatch() public {
        vm.prank(developer);
        market.withdraw(START_FREE - 2 * PREPAID * PRICE, developer);
        (Provider[] memory providers, ProviderOffer[] memory supplies) = many(3);
        Match memory item = signedMatch(demandOf(3), providers, supplies);
        expectFillSkipped(item, 2, Reason.FundsTooLow);
        assertEq(submit(item), 2);
    }

    function test_BondMustBeCovered() public {
        vm.prank(provider.account);
        market.withdraw(START_FREE - BOND + 1, provider.account);
        expectRefused(signedMatch(demandOf(1), provider, supplyOf(provider)), Reason.BondTooLow);
        fund(provider.account, 1);
        assertEq(submit(signedMatch(demandOf(1), provider, supplyOf(provider))), 1);
    }

    function test_OneAccountOnBothSidesPaysLockAndBond() public {
        Provider memory self =
            Provider({account: developer, key: developerKey, agent: provider.agent, payout: provider.payout});
        vm.prank(developer);
        market.withdraw(START_FREE - PREPAID * PRICE - BOND + 1, developer);
        expectRefused(signedMatch(demandOf(1), self, supplyOf(self)), Reason.BondTooLow);
        fund(developer, 1);
        assertEq(submit(signedMatch(demandOf(1), self, supplyOf(self))), 1);
        assertEq(free(developer), 0);
    }

    function test_OneAccountOnBothSidesLeavesItsBondOutOfLaterLocks() public {
        Provider[] memory providers = new Provider[](2);
        providers[0] = Provider({account: developer, key: developerKey, agent: provider.agent, payout: provider.payout});
        providers[1] = provider;
        ProviderOffer[] memory supplies = new ProviderOffer[](2);
        (supplies[0], supplies[1]) = (supplyOf(providers[0]), supplyOf(provider));
        vm.prank(developer);
        market.withdraw(START_FREE - 2 * PREPAID * PRICE - BOND + 1, developer);
        Match memory item = signedMatch(demandOf(2), providers, supplies);
        expectFillSkipped(item, 1, Reason.FundsTooLow);
        assertEq(submit(item), 1);
    }

    // --- Contract accounts ------------------------------------------------------------------------------------------

    function test_ContractAccountsSign() public {
        Wallet wallet = new Wallet(developer);
        fund(address(wallet), START_FREE);
        DeveloperOffer memory demand = demandOf(1);
        demand.developer = address(wallet);
        assertEq(submit(signedMatch(demand, provider, supplyOf(provider))), 1);
    }

    function test_AKeyThatTookOnCodeKeepsItsSignature() public {
        Match memory item = signedMatch(demandOf(1), provider, supplyOf(provider));
        vm.etch(developer, hex"ef01000000000000000000000000000000000000000001");
        assertEq(submit(item), 1);
    }

    function test_HostileContractAccountsAreOnlySkipped() public {
        address[3] memory hostile =
            [address(new BurningWallet()), address(new BombWallet()), address(new ShortWallet())];
        for (uint256 i = 0; i < hostile.length; ++i) {
            Match[] memory matches = new Match[](2);
            DeveloperOffer memory demand = demandOf(1);
            demand.developer = hostile[i];
            matches[0] = signedMatch(demand, provider, supplyOf(provider));
            demand = demandOf(1);
            demand.nonce = uint64(i);
            matches[1] = signedMatch(demand, provider, supplyOf(provider));
            expectMatchSkipped(matches[0], Reason.DeveloperSignatureInvalid);
            uint256 gasBefore = gasleft();
            assertEq(market.matchOffers{gas: 2_000_000}(matches), 1);
            assertLt(gasBefore - gasleft(), 1_200_000);
        }
    }
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {Test} from "forge-std/Test.sol";
import {Market} from "../src/Market.sol";
import {MarketExtension} from "../src/MarketExtension.sol";
import {TestUsdc} from "../src/TestUsdc.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {
    DealId,
    DealRef,
    DealState,
    DealView,
    DeveloperOffer,
    DeveloperOfferView,
    EndCause,
    Epoch,
    Fill,
    MarketConfig,
    Match,
    OfferHash,
    ProviderOffer,
    ProviderOfferView,
    Reason,
    Region
} from "../src/types/Types.sol";

/// @dev A market with one developer and as many providers as a test asks for, and short words for what they do.
abstract contract Base is Test {
    uint32 internal constant EPOCH_LENGTH = 100;
    uint32 internal constant WINDOW = 4;
    uint32 internal constant EVICT_AFTER = 3;
    uint32 internal constant BOND_EPOCHS = 2;
    uint32 internal constant MIN_PREPAID = 2;
    uint32 internal constant GRACE = 5;
    uint32 internal constant NOTICE = 2;

    /// @dev Ask of `supplyOf` for the size of `demandOf`: half a CPU at 1.00 and half a GiB at 0.50.
    uint64 internal constant PRICE = 750_000;
    uint64 internal constant BOND = PRICE * BOND_EPOCHS;
    uint32 internal constant TERM = 20;
    uint32 internal constant PREPAID = 4;
    uint256 internal constant START_FREE = 1000e6;
    uint256 internal constant GENESIS = 1_700_000_000;
    uint64 internal constant VALID_UNTIL = uint64(GENESIS + 365 days);

    TestUsdc internal token;
    IMarket internal market;

    /// @dev Deals that were signed for, by id.
    mapping(DealId dealId => DealRef) private _refs;

    address internal operator = makeAddr("operator");
    address internal stranger = makeAddr("stranger");
    address internal developer;
    uint256 internal developerKey;

    struct Provider {
        address account;
        uint256 key;
        address agent;
        address payout;
    }

    function setUp() public virtual {
        vm.warp(GENESIS);
        token = new TestUsdc();
        market = deployMarket(defaultConfig());
        (developer, developerKey) = makeAddrAndKey("developer");
        fund(developer, START_FREE);
    }

    function defaultConfig() internal view returns (MarketConfig memory) {
        return MarketConfig({
            token: address(token),
            operator: operator,
            genesis: uint64(GENESIS),
            epochLength: EPOCH_LENGTH,
            attestationWindow: WINDOW,
            evictAfterMissed: EVICT_AFTER,
            bondEpochs: BOND_EPOCHS,
            minPrepaidEpochs: MIN_PREPAID,
            graceEpochs: GRACE,
            noticeEpochs: NOTICE
        });
    }

    function deployMarket(MarketConfig memory constants) internal virtual returns (IMarket) {
        return IMarket(address(new Market(constants, address(new MarketExtension(constants)))));
    }

    // --- Actors ---------------------------------------------------------------------------------------------------

    function fund(address account, uint256 amount) internal {
        token.mint(account, amount);
        vm.startPrank(account);
        token.approve(address(market), amount);
        market.deposit(amount);
        vm.stopPrank();
    }

    function providerNo(uint256 number) internal returns (Provider memory provider) {
        string memory name = vm.toString(number);
        (provider.account, provider.key) = makeAddrAndKey(string.concat("provider", name));
        provider.agent = makeAddr(string.concat("agent", name));
        provider.payout = makeAddr(string.concat("payout", name));
    }

    function fundedProvider(uint256 number) internal returns (Provider memory provider) {
        provider = providerNo(number);
        fund(provider.account, START_FREE);
    }

    /// @dev Takes everything out of an account's free balance.
    function drain(address account) internal {
        uint256 all = market.freeBalance(account);
        if (all == 0) return;
        vm.prank(account);
        market.withdraw(all, account);
    }

    function free(address account) internal view returns (uint256) {
        return market.freeBalance(account);
    }

    // --- Offers ---------------------------------------------------------------------------------------------------

    function supplyOf(Provider memory provider) internal view virtual returns (ProviderOffer memory) {
        return ProviderOffer({
            provider: provider.account,
            agent: provider.agent,
            payout: provider.payout,
            region: Region.wrap("eudefra1"),
            milliCpu: 4000,
            memoryMib: 8192,
            features: 0xff,
            pricePerVcpuEpoch: 1_000_000,
            pricePerGibEpoch: 500_000,
            maxEpochs: 0,
            validUntil: VALID_UNTIL,
            nonce: 0,
            endpoint: "https://agent.example"
        });
    }

    function demandOf(uint16 replicas) internal view returns (DeveloperOffer memory offer) {
        offer.developer = developer;
        offer.artifact = keccak256("worker.wasm");
        offer.milliCpu = 500;
        offer.memoryMib = 512;
        offer.features = 0x3;
        offer.regions = new Region[](1);
        offer.regions[0] = Region.wrap("eude");
        offer.minReplicas = 1;
        offer.replicas = replicas;
        offer.maxPricePerEpoch = 1_000_000;
        offer.epochs = TERM;
        offer.prepaidEpochs = PREPAID;
        offer.validUntil = VALID_UNTIL;
        offer.artifactUrl = "https://artifacts.example/worker.wasm";
    }

    function sign(uint256 key, OfferHash offerHash) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, OfferHash.unwrap(offerHash));
        // The short form (ERC-2098); the long one is good as well.
        return abi.encodePacked(r, uint256(s) | (uint256(v - 27) << 255));
    }

    // --- Matching -------------------------------------------------------------------------------------------------

    function signedMatch(DeveloperOffer memory demand, Provider[] memory providers, ProviderOffer[] memory supplies)
        internal
        returns (Match memory item)
    {
        item.developerOffer = demand;
        item.developerSignature = sign(developerKey, market.hashDeveloperOffer(demand));
        item.fills = new Fill[](supplies.length);
        for (uint256 i = 0; i < supplies.length; ++i) {
            item.fills[i].offer = supplies[i];
            item.fills[i].signature = sign(providers[i].key, market.hashProviderOffer(supplies[i]));
            refTo(demand, supplies[i]);
        }
    }

    function signedMatch(DeveloperOffer memory demand, Provider memory provider, ProviderOffer memory supply)
        internal
        returns (Match memory)
    {
        Provider[] memory providers = new Provider[](1);
        ProviderOffer[] memory supplies = new ProviderOffer[](1);
        providers[0] = provider;
        supplies[0] = supply;
        return signedMatch(demand, providers, supplies);
    }

    function submit(Match memory item) internal returns (uint256) {
        Match[] memory matches = new Match[](1);
        matches[0] = item;
        return market.matchOffers(matches);
    }

    /// @dev Opens the one deal of a default demand at `provider`.
    function openDeal(Provider memory provider) internal returns (DealId dealId) {
        return openDeal(demandOf(1), provider);
    }

    function openDeal(DeveloperOffer memory demand, Provider memory provider) internal returns (DealId dealId) {
        assertEq(submit(signedMatch(demand, provider, supplyOf(provider))), 1, "opened");
        return market.dealIdOf(market.hashDeveloperOffer(demand), provider.account);
    }

    // --- Time and deals -------------------------------------------------------------------------------------------

    function epochNow() internal view returns (uint32) {
        return Epoch.unwrap(market.currentEpoch());
    }

    function toEpoch(uint256 epoch) internal {
        vm.warp(market.genesis() + epoch * EPOCH_LENGTH);
    }

    function nextEpochs(uint256 epochs) internal {
        toEpoch(epochNow() + epochs);
    }

    function attest(address agent, uint256 epoch) internal {
        vm.prank(agent);
        market.attest(Epoch.wrap(uint32(epoch)), keccak256(abi.encode(agent, epoch)));
    }

    /// @dev Lives through `epochs` epochs from the current one on, attesting each at its end.
    function serve(address agent, uint256 epochs) internal {
        for (uint256 i = 0; i < epochs; ++i) {
            uint256 epoch = epochNow();
            toEpoch(epoch + 1);
            attest(agent, epoch);
        }
    }

    /// @dev Names the deal that these offers make, and remembers it by its id.
    function refTo(DeveloperOffer memory demand, ProviderOffer memory supply) internal returns (DealId dealId) {
        OfferHash demandHash = market.hashDeveloperOffer(demand);
        dealId = market.dealIdOf(demandHash, supply.provider);
        _refs[dealId] = DealRef(demandHash, supply.provider, market.hashProviderOffer(supply));
    }

    function refOf(DealId dealId) internal view returns (DealRef memory) {
        return _refs[dealId];
    }

    function refsOf(DealId dealId) internal view returns (DealRef[] memory refs) {
        refs = new DealRef[](1);
        refs[0] = _refs[dealId];
    }

    function usedOf(ProviderOffer memory supply) internal view returns (uint256 milliCpu, uint256 memoryMib) {
        ProviderOfferView memory shown = market.providerOffer(supply.provider, market.hashProviderOffer(supply));
        return (shown.usedMilliCpu, shown.usedMemoryMib);
    }

    function placementOf(OfferHash demandHash) internal view returns (uint16 live, Epoch end) {
        DeveloperOfferView memory shown = market.developerOffer(demandHash);
        return (shown.liveReplicas, shown.endEpoch);
    }

    function claim(DealId dealId) internal returns (uint256) {
        return claim(only(dealId));
    }

    /// @dev All of one provider offer.
    function claim(DealId[] memory dealIds) internal returns (uint256) {
        OfferHash[] memory demands = new OfferHash[](dealIds.length);
        for (uint256 i = 0; i < dealIds.length; ++i) {
            demands[i] = _refs[dealIds[i]].developerOffer;
        }
        DealRef storage first = _refs[dealIds[0]];
        return market.claim(first.provider, first.providerOffer, demands);
    }

    function only(DealId dealId) internal pure returns (DealId[] memory dealIds) {
        dealIds = new DealId[](1);
        dealIds[0] = dealId;
    }

    function cancel(DealId dealId) internal {
        vm.prank(developer);
        market.cancelDeals(refsOf(dealId));
    }

    function giveNotice(Provider memory provider, DealId dealId) internal {
        vm.prank(provider.account);
        market.giveNotice(refsOf(dealId));
    }

    function deal(DealId dealId) internal view returns (DealView memory) {
        return market.deal(_refs[dealId]);
    }

    function assertEpoch(Epoch actual, uint256 expected, string memory what) internal pure {
        assertEq(Epoch.unwrap(actual), expected, what);
    }

    function assertState(DealId dealId, DealState state, EndCause cause) internal view {
        DealView memory shown = deal(dealId);
        assertEq(uint8(shown.state), uint8(state), "state");
        assertEq(uint8(shown.cause), uint8(cause), "cause");
    }

    function assertReason(Reason actual, Reason expected) internal pure {
        assertEq(uint8(actual), uint8(expected), "reason");
    }

    // --- Expected events ------------------------------------------------------------------------------------------

    function expectFillSkipped(Match memory item, uint256 index, Reason reason) internal {
        vm.expectEmit(address(market));
        emit IMarketEvents.FillSkipped(
            market.hashDeveloperOffer(item.developerOffer), market.hashProviderOffer(item.fills[index].offer), reason
        );
    }

    function expectMatchSkipped(Match memory item, Reason reason) internal {
        vm.expectEmit(address(market));
        emit IMarketEvents.MatchSkipped(market.hashDeveloperOffer(item.developerOffer), reason);
    }
}

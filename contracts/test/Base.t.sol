// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Test} from "forge-std/Test.sol";
import {Market} from "../src/Market.sol";
import {TestUsdc} from "../src/TestUsdc.sol";
import {IMarket} from "../src/interfaces/IMarket.sol";
import {
    DealId,
    DealState,
    DealView,
    DeveloperOffer,
    EndCause,
    Epoch,
    MarketConfig,
    Match,
    OfferHash,
    ProviderOffer,
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
        return IMarket(address(new Market(constants)));
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

    function supplyOf(Provider memory provider) internal view returns (ProviderOffer memory) {
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
        return abi.encodePacked(r, s, v);
    }

    // --- Matching -------------------------------------------------------------------------------------------------

    function signedMatch(DeveloperOffer memory demand, Provider[] memory providers, ProviderOffer[] memory supplies)
        internal
        view
        returns (Match memory item)
    {
        item.developerOffer = demand;
        item.developerSignature = sign(developerKey, market.hashDeveloperOffer(demand));
        item.providerOffers = supplies;
        item.providerSignatures = new bytes[](supplies.length);
        for (uint256 i = 0; i < supplies.length; ++i) {
            item.providerSignatures[i] = sign(providers[i].key, market.hashProviderOffer(supplies[i]));
        }
    }

    function signedMatch(DeveloperOffer memory demand, Provider memory provider, ProviderOffer memory supply)
        internal
        view
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

    function claim(DealId dealId) internal returns (uint256) {
        return market.claim(only(dealId));
    }

    function only(DealId dealId) internal pure returns (DealId[] memory dealIds) {
        dealIds = new DealId[](1);
        dealIds[0] = dealId;
    }

    function cancel(DealId dealId) internal {
        vm.prank(developer);
        market.cancelDeals(only(dealId));
    }

    function giveNotice(Provider memory provider, DealId dealId) internal {
        vm.prank(provider.account);
        market.giveNotice(only(dealId));
    }

    function deal(DealId dealId) internal view returns (DealView memory) {
        return market.deal(dealId);
    }

    function assertEpoch(Epoch actual, uint256 expected, string memory what) internal pure {
        assertEq(Epoch.unwrap(actual), expected, what);
    }

    function assertState(DealId dealId, DealState state, EndCause cause) internal view {
        DealView memory shown = market.deal(dealId);
        assertEq(uint8(shown.state), uint8(state), "state");
        assertEq(uint8(shown.cause), uint8(cause), "cause");
    }

    function assertReason(Reason actual, Reason expected) internal pure {
        assertEq(uint8(actual), uint8(expected), "reason");
    }

    // --- Expected events ------------------------------------------------------------------------------------------

    function expectFillSkipped(Match memory item, uint256 index, Reason reason) internal {
        vm.expectEmit(address(market));
        emit IMarket.FillSkipped(
            market.hashDeveloperOffer(item.developerOffer), market.hashProviderOffer(item.providerOffers[index]), reason
        );
    }

    function expectMatchSkipped(Match memory item, Reason reason) internal {
        vm.expectEmit(address(market));
        emit IMarket.MatchSkipped(market.hashDeveloperOffer(item.developerOffer), reason);
    }
}

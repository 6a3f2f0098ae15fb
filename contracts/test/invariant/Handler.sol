// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {StdUtils} from "forge-std/StdUtils.sol";
import {Vm} from "forge-std/Vm.sol";
import {TestUsdc} from "../../src/TestUsdc.sol";
import {IMarket} from "../../src/interfaces/IMarket.sol";
import {
    DealId,
    DealState,
    DealView,
    DeveloperOffer,
    Epoch,
    Match,
    OfferHash,
    ProviderOffer,
    Region
} from "../../src/types/Types.sol";
import {Ledger} from "./Ledger.sol";

/// @dev Does what the market's users do, at random. Every call that it makes is one that must not revert, but for the
/// two refusals that depend on the clock alone.
contract Handler is StdUtils {
    Vm internal constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 internal constant ACTORS = 3;

    IMarket public immutable MARKET;
    TestUsdc public immutable TOKEN;
    address public immutable OPERATOR;
    Ledger public immutable LEDGER;

    uint256 public donated;
    mapping(string action => uint256) public calls;
    DeveloperOffer[] internal _demands;
    ProviderOffer[] internal _supplies;
    mapping(address account => uint64) internal _floors;

    constructor(IMarket market, TestUsdc token, address operator) {
        MARKET = market;
        TOKEN = token;
        OPERATOR = operator;
        LEDGER = new Ledger();
        for (uint256 i = 0; i < ACTORS; ++i) {
            // Two small offers of each provider, so that capacity runs out.
            _supplies.push(_newSupply(i, 1_000_000, 1200));
            _supplies.push(_newSupply(i, 700_000, 600));
            _demands.push(_newDemand(i, i));
        }
    }

    modifier counted(string memory action) {
        VM.recordLogs();
        _;
        ++calls[action];
        LEDGER.record(VM.getRecordedLogs(), address(MARKET));
    }

    // --- Actors -----------------------------------------------------------------------------------------------------

    function developerKey(uint256 seed) internal pure returns (uint256) {
        return 1000 + (seed % ACTORS);
    }

    /// @dev The first provider is a developer as well.
    function providerKey(uint256 seed) internal pure returns (uint256) {
        return seed % ACTORS == 0 ? 1000 : 2000 + (seed % ACTORS);
    }

    /// @dev The last two providers share an agent.
    function agentOf(uint256 seed) internal pure returns (address) {
        return VM.addr(3000 + (seed % ACTORS == 2 ? 1 : seed % ACTORS));
    }

    function anyAccount(uint256 seed) internal pure returns (address) {
        uint256 kind = seed % 3;
        if (kind == 0) return VM.addr(developerKey(seed / 3));
        if (kind == 1) return VM.addr(providerKey(seed / 3));
        return VM.addr(4000 + (seed / 3) % ACTORS);
    }

    // --- Money ------------------------------------------------------------------------------------------------------

    function deposit(uint256 who, uint256 amount) external counted("deposit") {
        amount = bound(amount, 1, 50e6);
        address account = anyAccount(who);
        TOKEN.mint(account, amount);
        VM.startPrank(account);
        TOKEN.approve(address(MARKET), amount);
        MARKET.deposit(amount);
        VM.stopPrank();
    }

    function withdraw(uint256 who, uint256 amount) external counted("withdraw") {
        address account = anyAccount(who);
        uint256 free = MARKET.freeBalance(account);
        if (free == 0) return;
        // Now and then all of it, so that deals run dry.
        amount = amount % 5 == 0 ? free : bound(amount, 1, free / 4 + 1);
        VM.prank(account);
        MARKET.withdraw(amount, account);
    }

    /// @dev So that deals run dry.
    function drainDeveloper(uint256 which) external counted("drainDeveloper") {
        (, DealView memory shown) = _openDeal(which);
        uint256 free = MARKET.freeBalance(shown.developer);
        if (free == 0) return;
        VM.prank(shown.developer);
        MARKET.withdraw(free, shown.developer);
    }

    function donate(uint256 amount) external counted("donate") {
        amount = bound(amount, 1, 1e6);
        TOKEN.mint(address(MARKET), amount);
        donated += amount;
    }

    // --- Offers -----------------------------------------------------------------------------------------------------

    function newDemand(uint256 who, uint256 seed) external counted("newDemand") {
        _demands.push(_newDemand(who, seed));
    }

    function postDemand(uint256 who, uint256 seed) external counted("postDemand") {
        DeveloperOffer memory demand = _newDemand(who, seed);
        VM.prank(demand.developer);
        MARKET.postDeveloperOffer(demand);
        _demands.push(demand);
    }

    function cancelOffer(uint256 which) external counted("cancelOffer") {
        // Some offers stay, or nothing would be matched any more.
        if (_demands.length < 8) return;
        DeveloperOffer memory demand = _demands[which % _demands.length];
        OfferHash offerHash = MARKET.hashDeveloperOffer(demand);
        VM.prank(demand.developer);
        MARKET.cancelOffer(offerHash);
    }

    function raiseNonceFloor(uint256 who) external counted("raiseNonceFloor") {
        address account = anyAccount(who);
        uint64 floor = MARKET.nonceFloor(account) + 1;
        VM.prank(account);
        MARKET.raiseNonceFloor(floor);
    }

    /// @dev Seldom, or little else would happen.
    function setPaused(uint256 seed) external counted("setPaused") {
        VM.prank(OPERATOR);
        MARKET.setMatchingPaused(seed % 8 == 0);
    }

    // --- Matching ---------------------------------------------------------------------------------------------------

    function matchOffers(uint256 which, uint256 first, uint256 count) external counted("matchOffers") {
        _matchDemand(_demands[which % _demands.length], first, bound(count, 1, _supplies.length));
    }

    function matchNewDemand(uint256 who, uint256 seed, uint256 first) external counted("matchNewDemand") {
        _demands.push(_newDemand(who, seed));
        _matchDemand(_demands[_demands.length - 1], first, _supplies.length);
    }

    function _matchDemand(DeveloperOffer memory demand, uint256 first, uint256 count) private {
        if (MARKET.matchingPaused()) return;
        Match[] memory matches = new Match[](1);
        matches[0].developerOffer = demand;
        matches[0].developerSignature = _sign(demand.developer, MARKET.hashDeveloperOffer(demand));
        matches[0].providerOffers = new ProviderOffer[](count);
        matches[0].providerSignatures = new bytes[](count);
        for (uint256 i = 0; i < count; ++i) {
            // May name the same offer twice, and offers that do not fit.
            ProviderOffer memory supply = _supplies[(first % 7 + i * (first % 3 + 1)) % _supplies.length];
            matches[0].providerOffers[i] = supply;
            matches[0].providerSignatures[i] = _sign(supply.provider, MARKET.hashProviderOffer(supply));
        }
        MARKET.matchOffers(matches);
    }

    // --- Deals ------------------------------------------------------------------------------------------------------

    function attest(uint256 who, uint256 back) external counted("attest") {
        address agent = agentOf(who);
        uint32 current = Epoch.unwrap(MARKET.currentEpoch());
        uint32 window = MARKET.config().attestationWindow;
        if (current == 0) return;
        uint32 epoch = current - uint32(bound(back, 1, current < window ? current : window));
        if (MARKET.isAttested(agent, Epoch.wrap(epoch))) return;
        VM.prank(agent);
        MARKET.attest(Epoch.wrap(epoch), bytes32(back));
    }

    /// @dev The everyday course: time goes on, and all agents attest.
    function serve(uint256 epochs) external counted("serve") {
        epochs = bound(epochs, 1, 4);
        for (uint256 i = 0; i < epochs; ++i) {
            uint32 epoch = Epoch.unwrap(MARKET.currentEpoch());
            _skip(1);
            for (uint256 agent = 0; agent < 2; ++agent) {
                VM.prank(agentOf(agent));
                MARKET.attest(Epoch.wrap(epoch), bytes32(0));
            }
        }
    }

    function pass(uint256 epochs) external counted("pass") {
        _skip(bound(epochs, 1, 6));
    }

    function claim(uint256 from, uint256 count) external counted("claim") {
        uint256 known = LEDGER.dealCount();
        DealId[] memory dealIds = new DealId[](bound(count, 1, 8));
        for (uint256 i = 0; i < dealIds.length; ++i) {
            // Open, ended and unknown deals, some of them twice.
            dealIds[i] = known == 0 ? DealId.wrap(0) : DealId.wrap(LEDGER.dealIds((from % known + i) % known));
        }
        MARKET.claim(dealIds);
    }

    function fundDeal(uint256 which, uint256 who, uint256 amount) external counted("fundDeal") {
        (DealId dealId, DealView memory shown) = _openDeal(which);
        address account = anyAccount(who);
        uint256 free = MARKET.freeBalance(account);
        if (shown.developer == address(0) || free == 0) return;
        // Settling first may take from the same account.
        if (account == shown.developer) return;
        amount = bound(amount, 1, free < 3 * uint256(shown.pricePerEpoch) + 1 ? free : 3 * shown.pricePerEpoch + 1);
        VM.prank(account);
        MARKET.fundDeal(dealId, uint64(amount));
    }

    function cancelDeal(uint256 which) external counted("cancelDeal") {
        (DealId dealId, DealView memory shown) = _openDeal(which);
        if (shown.developer == address(0)) return;
        VM.prank(shown.developer);
        MARKET.cancelDeals(_only(dealId));
    }

    function giveNotice(uint256 which, bool byAgent) external counted("giveNotice") {
        (DealId dealId, DealView memory shown) = _openDeal(which);
        if (shown.developer == address(0)) return;
        VM.prank(byAgent ? shown.agent : shown.provider);
        MARKET.giveNotice(_only(dealId));
    }

    function evict(uint256 which) external counted("evict") {
        (DealId dealId, DealView memory shown) = _openDeal(which);
        if (shown.developer == address(0)) return;
        try MARKET.evict(dealId) {
            ++calls["evicted"];
        } catch (bytes memory refusal) {
            require(bytes4(refusal) == IMarket.NotEvictable.selector, "evict failed otherwise");
            _forgetRefused();
        }
    }

    function closeDeal(uint256 which) external counted("closeDeal") {
        (DealId dealId, DealView memory shown) = _openDeal(which);
        if (shown.developer == address(0)) return;
        try MARKET.closeDeal(dealId) {
            ++calls["closed"];
        } catch (bytes memory refusal) {
            require(bytes4(refusal) == IMarket.NotYetOver.selector, "close failed otherwise");
            _forgetRefused();
        }
    }

    // --- For the invariants -----------------------------------------------------------------------------------------

    function supplies() external view returns (ProviderOffer[] memory) {
        return _supplies;
    }

    function demands() external view returns (DeveloperOffer[] memory) {
        return _demands;
    }

    // --- Helpers ----------------------------------------------------------------------------------------------------

    /// @dev Forge records the logs of a reverted call as well.
    function _forgetRefused() private {
        VM.getRecordedLogs();
    }

    function _skip(uint256 epochs) private {
        VM.warp(VM.getBlockTimestamp() + epochs * MARKET.config().epochLength);
    }

    /// @dev The first open deal from a random one on.
    function _openDeal(uint256 which) private view returns (DealId dealId, DealView memory shown) {
        uint256 known = LEDGER.dealCount();
        for (uint256 i = 0; i < known; ++i) {
            dealId = DealId.wrap(LEDGER.dealIds((which % known + i) % known));
            shown = MARKET.deal(dealId);
            if (shown.state != DealState.Ended) return (dealId, shown);
        }
        delete shown;
    }

    function _newSupply(uint256 who, uint64 price, uint32 milliCpu) private view returns (ProviderOffer memory) {
        return ProviderOffer({
            provider: VM.addr(providerKey(who)),
            agent: agentOf(who),
            payout: VM.addr(4000 + who % ACTORS),
            region: who % 2 == 0 ? Region.wrap("eudefra1") : Region.wrap("naus"),
            milliCpu: milliCpu,
            memoryMib: 2048,
            features: 1,
            pricePerVcpuEpoch: price,
            pricePerGibEpoch: price / 3,
            maxEpochs: who % 2 == 0 ? 0 : 15,
            validUntil: type(uint64).max,
            nonce: type(uint64).max,
            endpoint: "https://agent.example"
        });
    }

    function _newDemand(uint256 who, uint256 seed) private view returns (DeveloperOffer memory demand) {
        demand.developer = VM.addr(developerKey(who));
        demand.artifact = keccak256("worker.wasm");
        demand.milliCpu = uint32(100 + seed % 400);
        demand.memoryMib = uint32(100 + seed % 300);
        demand.features = seed % 5 == 0 ? 0 : 1;
        if (seed % 4 == 0) {
            demand.regions = new Region[](1);
            demand.regions[0] = Region.wrap("eu");
        }
        demand.replicas = uint16(1 + seed % 3);
        demand.minReplicas = uint16(1 + (seed / 3) % demand.replicas);
        demand.maxPricePerEpoch = 600_000;
        demand.epochs = uint32(3 + seed % 20);
        demand.prepaidEpochs = uint32(2 + seed % 6);
        demand.validUntil = type(uint64).max;
        // Above every floor that the handler raises, but for some.
        demand.nonce = uint64(_demands.length) + (seed % 6 == 0 ? 0 : 1 << 32);
    }

    function _sign(address account, OfferHash offerHash) private pure returns (bytes memory) {
        uint256 key = 1000;
        while (VM.addr(key) != account) key = key == 999 + ACTORS ? 2000 : key + 1;
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(key, OfferHash.unwrap(offerHash));
        return abi.encodePacked(r, s, v);
    }

    function _only(DealId dealId) private pure returns (DealId[] memory dealIds) {
        dealIds = new DealId[](1);
        dealIds[0] = dealId;
    }
}

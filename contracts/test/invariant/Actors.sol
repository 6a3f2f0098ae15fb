// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {StdUtils} from "forge-std/StdUtils.sol";
import {Vm} from "forge-std/Vm.sol";
import {DeveloperOffer, OfferHash, ProviderOffer, Region} from "../../src/types/Types.sol";

/// @dev Who uses the market, and what they offer. Keys are small numbers, so that anything can be signed at any time.
abstract contract Actors is StdUtils {
    Vm internal constant VM = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));
    uint256 internal constant ACTORS = 3;
    uint256 internal constant DEVELOPER_KEYS = 1000;
    uint256 internal constant PROVIDER_KEYS = 2000;
    uint256 internal constant AGENT_KEYS = 3000;
    uint256 internal constant PAYOUT_KEYS = 4000;
    uint256 internal constant MATCHER_KEYS = 5000;
    uint64 internal constant MATCHER_FEE = 1234;

    // Kept, because working one out of its key is slow.
    address[ACTORS] private _developers;
    address[ACTORS] private _providers;
    address[ACTORS] private _agents;
    address[ACTORS] private _payouts;
    address[2] private _matchers;
    /// @dev Does whatever anyone may do, and owns nothing.
    address public immutable STRANGER = VM.addr(9999);
    mapping(address account => uint256) private _keys;

    constructor() {
        for (uint256 i = 0; i < ACTORS; ++i) {
            _developers[i] = _keep(DEVELOPER_KEYS + i);
            // The first provider is a developer as well.
            _providers[i] = i == 0 ? _developers[0] : _keep(PROVIDER_KEYS + i);
            _agents[i] = _keep(AGENT_KEYS + i);
            _payouts[i] = _keep(PAYOUT_KEYS + i);
        }
        _matchers = [_keep(MATCHER_KEYS), _keep(MATCHER_KEYS + 1)];
    }

    function _keep(uint256 key) private returns (address account) {
        account = VM.addr(key);
        _keys[account] = key;
    }

    function developerNo(uint256 seed) public view returns (address) {
        return _developers[seed % ACTORS];
    }

    function providerNo(uint256 seed) public view returns (address) {
        return _providers[seed % ACTORS];
    }

    /// @dev The second one works for two providers; the third is paid for one of its offers.
    function agentNo(uint256 seed) public view returns (address) {
        return _agents[seed % ACTORS];
    }

    /// @dev The first one is named by some offers.
    function matcherNo(uint256 seed) public view returns (address) {
        return _matchers[seed % 2];
    }

    function anyAccount(uint256 seed) public view returns (address) {
        uint256 kind = seed % 3;
        if (kind == 0) return developerNo(seed / 3);
        if (kind == 1) return providerNo(seed / 3);
        return _payouts[(seed / 3) % ACTORS];
    }

    function _digestSignedBy(address account, bytes32 digest) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = VM.sign(_keys[account], digest);
        return abi.encodePacked(r, s, v);
    }

    function _vrs(address account, bytes32 digest) internal view returns (uint8 v, bytes32 r, bytes32 s) {
        return VM.sign(_keys[account], digest);
    }

    // --- Offers -----------------------------------------------------------------------------------------------------

    /// @dev Two kinds of each provider, both small, so that capacity runs out: the first is paid elsewhere.
    function _supplyOf(uint256 who, uint256 kind, uint64 nonce) internal view returns (ProviderOffer memory offer) {
        who %= ACTORS;
        offer.provider = providerNo(who);
        offer.agent = agentNo(who == 2 && kind == 0 ? 1 : who);
        offer.payout = _payoutOf(who, kind);
        offer.region = who % 2 == 0 ? Region.wrap("eudefra1") : Region.wrap("naus");
        offer.milliCpu = kind == 0 ? 2500 : 1200;
        offer.memoryMib = 2500;
        offer.features = kind == 0 ? 3 : 1;
        offer.pricePerVcpuEpoch = kind == 0 ? 1_000_003 : 700_001;
        offer.pricePerGibEpoch = kind == 0 ? 333_331 : 200_003;
        offer.maxEpochs = who == 1 ? 15 : 0;
        offer.validUntil = type(uint64).max;
        offer.nonce = nonce;
        offer.endpoint = "https://agent.example";
    }

    function _payoutOf(uint256 who, uint256 kind) private view returns (address) {
        if (kind == 0) return who == 2 ? developerNo(1) : _payouts[who];
        return who == 2 ? agentNo(2) : providerNo(who);
    }

    function _demandOf(uint256 who, uint256 seed, uint256 number) internal view returns (DeveloperOffer memory demand) {
        demand.developer = developerNo(who);
        demand.artifact = keccak256("worker.wasm");
        demand.milliCpu = uint32(100 + seed % 400);
        demand.memoryMib = uint32(100 + seed % 300);
        demand.features = seed % 5 == 0 ? 0 : seed % 5 == 1 ? 3 : 1;
        if (seed % 4 == 0) {
            demand.regions = new Region[](2);
            demand.regions[0] = Region.wrap("as");
            demand.regions[1] = Region.wrap("eu");
        }
        demand.replicas = uint16(1 + seed % 3);
        demand.minReplicas = uint16(1 + (seed / 3) % demand.replicas);
        demand.maxPricePerEpoch = 550_000;
        // Now and then one that outlasts a word of attested epochs.
        demand.epochs = uint32(seed % 6 == 0 ? 250 + seed % 100 : 3 + seed % 25);
        demand.prepaidEpochs = uint32(2 + seed % 6);
        demand.validUntil = seed % 11 == 0 ? uint64(block.timestamp + 300) : type(uint64).max;
        // Above every floor that is raised one by one, but for some.
        demand.nonce = uint64(number) + (seed % 4 == 3 ? 0 : 1 << 32);
        if (seed % 9 == 0) demand.matcher = matcherNo(0);
        if (seed % 3 == 1) demand.matcherFee = MATCHER_FEE;
        _limitProviders(demand, seed);
        demand.artifactUrl = "https://artifacts.example/worker.wasm";
    }

    function _limitProviders(DeveloperOffer memory demand, uint256 seed) private view {
        if (seed % 17 == 0) {
            demand.allow = new address[](2);
            demand.allow[0] = providerNo(seed / 17);
            demand.allow[1] = providerNo(seed / 17 + 1);
        }
        if (seed % 19 == 0) {
            demand.deny = new address[](1);
            demand.deny[0] = providerNo(seed / 19);
        }
    }
}

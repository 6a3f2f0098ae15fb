// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../../src/interfaces/IMarketEvents.sol";
import {Vm} from "forge-std/Vm.sol";
import {
    AccountView,
    DealId,
    DealRef,
    DealState,
    DealView,
    DeveloperOffer,
    DeveloperOfferView,
    EndCause,
    Epoch,
    OfferHash,
    ProviderOffer,
    ProviderOfferView,
    Reason
} from "../../src/types/Types.sol";
import {Naive} from "./Naive.sol";

/// @dev All of the market's state rebuilt from its events and its constants alone, the slow way: what an indexer would
/// hold. Next to it stand sums that no contract keeps, which the invariants need.
contract Ledger {
    /// @dev Where the money of a deal went.
    struct Flow {
        uint256 funded;
        uint256 paid;
        uint256 refunded;
        // What the attested epochs that were settled cost, counted one by one, and how many they were.
        uint256 owed;
        uint256 epochsPaid;
        // What was paid beyond what was owed before a gap.
        uint256 chargedInGaps;
        // Epochs in gaps, and the first epoch of the present run of funded ones.
        uint256 gapEpochs;
        uint256 fundedSince;
        uint256 firstPrice;
    }

    /// @dev Data of `DealChanged`.
    struct Change {
        uint32 sequence;
        Epoch from;
        Epoch endEpoch;
        uint64 price;
        uint32 milliCpu;
        uint32 memoryMib;
        uint64 bond;
        Epoch paidUntil;
    }

    uint32 internal immutable BOND_EPOCHS;

    bool public matchingPaused;
    // Deals that were opened although one of their offers was void, or that do not fit their offers.
    uint256 public openedUnderVoidOffers;
    uint256 public misfits;

    /// @dev How often something was passed over, by reason.
    mapping(Reason reason => uint256) public skipped;

    DealRef[] internal _refs;
    mapping(bytes32 dealId => DealView) internal _deals;
    mapping(bytes32 dealId => Flow) internal _flows;
    mapping(bytes32 dealId => Naive.Price[]) internal _prices;

    bytes32[] public demandHashes;
    bytes32[] public supplyHashes;
    mapping(bytes32 demand => DeveloperOffer) internal _demandOffers;
    mapping(bytes32 supply => ProviderOffer) internal _supplyOffers;
    mapping(bytes32 demand => DeveloperOfferView) internal _demands;
    mapping(bytes32 supply => ProviderOfferView) internal _supplies;
    mapping(address owner => mapping(bytes32 offerHash => bool)) public isCancelled;

    address[] public accounts;
    mapping(address account => bool) internal _isKnown;
    mapping(address account => AccountView) internal _accounts;
    mapping(address agent => mapping(uint256 epoch => bool)) public isAttested;

    constructor(uint32 bondEpochs) {
        BOND_EPOCHS = bondEpochs;
    }

    // --- What it holds ----------------------------------------------------------------------------------------------

    function dealCount() external view returns (uint256) {
        return _refs.length;
    }

    function refAt(uint256 index) external view returns (DealRef memory) {
        return _refs[index];
    }

    function dealIdAt(uint256 index) public view returns (bytes32) {
        DealRef storage ref = _refs[index];
        return keccak256(abi.encode(ref.developerOffer, ref.provider));
    }

    function flowAt(uint256 index) external view returns (Flow memory) {
        return _flows[dealIdAt(index)];
    }

    function dealAt(uint256 index) external view returns (DealView memory) {
        return dealOf(dealIdAt(index));
    }

    function dealOf(bytes32 dealId) public view returns (DealView memory shown) {
        shown = _deals[dealId];
        shown.paidUntil = Naive.paidUntil(shown);
    }

    function flowOf(bytes32 dealId) external view returns (Flow memory) {
        return _flows[dealId];
    }

    function demandCount() external view returns (uint256) {
        return demandHashes.length;
    }

    function supplyCount() external view returns (uint256) {
        return supplyHashes.length;
    }

    function demandOf(bytes32 offerHash) external view returns (DeveloperOfferView memory) {
        return _demands[offerHash];
    }

    function supplyOf(bytes32 offerHash) external view returns (ProviderOfferView memory shown) {
        shown = _supplies[offerHash];
        shown.cancelled = isCancelled[_supplyOffers[offerHash].provider][offerHash];
    }

    function demandOfferOf(bytes32 offerHash) external view returns (DeveloperOffer memory) {
        return _demandOffers[offerHash];
    }

    function supplyOfferOf(bytes32 offerHash) external view returns (ProviderOffer memory) {
        return _supplyOffers[offerHash];
    }

    function accountCount() external view returns (uint256) {
        return accounts.length;
    }

    function accountOf(address owner) external view returns (AccountView memory) {
        return _accounts[owner];
    }

    // --- Folding ----------------------------------------------------------------------------------------------------

    function record(Vm.Log[] calldata logs, address market) external {
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter == market) _record(logs[i]);
        }
    }

    function _record(Vm.Log calldata log) private {
        bytes32 kind = log.topics[0];
        if (kind == IMarketEvents.DealSettled.selector) _settled(log.topics[1], log.data);
        else if (kind == IMarketEvents.DealUnfunded.selector) _unfunded(log.topics[1], log.data);
        else if (kind == IMarketEvents.DealFunded.selector) _funded(log.topics[1], _address(log.topics[2]), log.data);
        else if (kind == IMarketEvents.DealOpened.selector) _opened(log);
        else if (kind == IMarketEvents.DealChanged.selector) _changed(log.topics[1], log.data);
        else if (kind == IMarketEvents.DealRefunded.selector) _refunded(log.topics[1], log.data);
        else if (kind == IMarketEvents.DealEnding.selector) _ending(log.topics[1], log.data);
        else if (kind == IMarketEvents.DealEnded.selector) _ended(log.topics[1], log.data);
        else _recordOther(kind, log);
    }

    function _recordOther(bytes32 kind, Vm.Log calldata log) private {
        if (kind == IMarketEvents.Deposited.selector) {
            _give(_address(log.topics[1]), abi.decode(log.data, (uint256)));
        } else if (kind == IMarketEvents.Withdrawn.selector) {
            _take(_address(log.topics[1]), abi.decode(log.data, (uint256)));
        } else if (kind == IMarketEvents.Attested.selector) {
            _attested(_address(log.topics[1]), uint256(log.topics[2]), log.data);
        } else if (kind == IMarketEvents.MatcherPaid.selector) {
            uint256 amount = abi.decode(log.data, (uint256));
            _take(_demands[log.topics[1]].developer, amount);
            _give(_address(log.topics[2]), amount);
        } else if (kind == IMarketEvents.ProviderOfferOpened.selector) {
            _supplyOpened(log.topics[1], abi.decode(log.data, (ProviderOffer)));
        } else if (kind == IMarketEvents.DeveloperOfferOpened.selector) {
            _demandOpened(log.topics[1], abi.decode(log.data, (DeveloperOffer)));
        } else if (kind == IMarketEvents.OfferCancelled.selector) {
            isCancelled[_address(log.topics[1])][log.topics[2]] = true;
        } else if (kind == IMarketEvents.NonceFloorRaised.selector) {
            _know(_address(log.topics[1]));
            _accounts[_address(log.topics[1])].nonceFloor = abi.decode(log.data, (uint64));
        } else if (kind == IMarketEvents.ArtifactUpdated.selector) {
            DeveloperOfferView storage demand = _demands[log.topics[1]];
            (demand.version, demand.artifact, demand.manifest,) =
                abi.decode(log.data, (uint32, bytes32, bytes32, string));
        } else if (kind == IMarketEvents.MatchingPaused.selector) {
            matchingPaused = abi.decode(log.data, (bool));
        } else {
            bool isSkipped = kind == IMarketEvents.MatchSkipped.selector || kind == IMarketEvents.FillSkipped.selector
                || kind == IMarketEvents.ClaimSkipped.selector;
            require(isSkipped, "an event that the ledger does not know");
            ++skipped[abi.decode(log.data, (Reason))];
        }
    }

    // --- Offers and attestations ------------------------------------------------------------------------------------

    function _supplyOpened(bytes32 offerHash, ProviderOffer memory offer) private {
        supplyHashes.push(offerHash);
        _supplyOffers[offerHash] = offer;
        _supplies[offerHash].agent = offer.agent;
        _supplies[offerHash].payout = offer.payout;
    }

    function _demandOpened(bytes32 offerHash, DeveloperOffer memory offer) private {
        demandHashes.push(offerHash);
        _demandOffers[offerHash] = offer;
        DeveloperOfferView storage demand = _demands[offerHash];
        demand.developer = offer.developer;
        demand.prepaidEpochs = offer.prepaidEpochs;
        demand.milliCpu = offer.milliCpu;
        demand.memoryMib = offer.memoryMib;
    }

    function _attested(address agent, uint256 epoch, bytes calldata data) private {
        (bytes32 root, bytes32 rolled) = abi.decode(data, (bytes32, bytes32));
        _know(agent);
        bytes32 expected = keccak256(abi.encode(_accounts[agent].receiptsHash, epoch, root));
        require(rolled == expected, "the rolling hash does not follow from the one before");
        _accounts[agent].receiptsHash = rolled;
        isAttested[agent][epoch] = true;
    }

    // --- Deals ------------------------------------------------------------------------------------------------------

    function _opened(Vm.Log calldata log) private {
        bytes32 dealId = log.topics[1];
        require(_deals[dealId].state == DealState.None, "a deal was opened twice");
        DealView memory item;
        item.dealId = DealId.wrap(dealId);
        item.developerOffer = OfferHash.wrap(log.topics[2]);
        item.providerOffer = OfferHash.wrap(log.topics[3]);
        (item.pricePerEpoch, item.settledUntil, item.endEpoch, item.locked) =
            abi.decode(log.data, (uint64, Epoch, Epoch, uint64));
        DeveloperOffer memory wanted = _demandOffers[log.topics[2]];
        ProviderOffer memory offered = _supplyOffers[log.topics[3]];
        item.developer = wanted.developer;
        item.provider = offered.provider;
        item.agent = offered.agent;
        item.payout = offered.payout;
        item.milliCpu = wanted.milliCpu;
        item.memoryMib = wanted.memoryMib;
        item.bond = item.pricePerEpoch * BOND_EPOCHS;
        item.state = DealState.Active;
        require(dealId == keccak256(abi.encode(log.topics[2], item.provider)), "a deal's id follows from its offers");
        _refs.push(DealRef(item.developerOffer, item.provider, item.providerOffer));
        _deals[dealId] = item;
        _flows[dealId].funded = item.locked;
        _flows[dealId].fundedSince = Epoch.unwrap(item.settledUntil);
        _flows[dealId].firstPrice = item.pricePerEpoch;
        _prices[dealId].push(Naive.Price(0, item.pricePerEpoch));
        _placed(log.topics[2], log.topics[3], item);
        if (_isVoid(wanted, offered, item)) ++openedUnderVoidOffers;
        if (!Naive.fits(wanted, offered, item)) ++misfits;
        _take(item.developer, item.locked);
        _take(item.provider, item.bond);
    }

    function _placed(bytes32 demandHash, bytes32 supplyHash, DealView memory item) private {
        DeveloperOfferView storage demand = _demands[demandHash];
        demand.liveReplicas += 1;
        demand.endEpoch = item.endEpoch;
        _supplies[supplyHash].usedMilliCpu += item.milliCpu;
        _supplies[supplyHash].usedMemoryMib += item.memoryMib;
    }

    function _isVoid(DeveloperOffer memory wanted, ProviderOffer memory offered, DealView memory item)
        private
        view
        returns (bool)
    {
        if (isCancelled[item.developer][OfferHash.unwrap(item.developerOffer)]) return true;
        if (isCancelled[item.provider][OfferHash.unwrap(item.providerOffer)]) return true;
        if (wanted.nonce < _accounts[item.developer].nonceFloor) return true;
        if (offered.nonce < _accounts[item.provider].nonceFloor) return true;
        return wanted.validUntil < block.timestamp || offered.validUntil < block.timestamp || matchingPaused;
    }

    function _settled(bytes32 dealId, bytes calldata data) private {
        (uint64 paid, uint64 toppedUp, Epoch until) = abi.decode(data, (uint64, uint64, Epoch));
        DealView storage item = _deals[dealId];
        Flow storage flow = _flows[dealId];
        (uint256 owed, uint256 epochs) = _owedUntil(dealId, Epoch.unwrap(until));
        flow.owed += owed;
        flow.epochsPaid += epochs;
        flow.paid += paid;
        flow.funded += toppedUp;
        uint256 gap = Epoch.unwrap(item.unfundedSince);
        if (gap != 0 && paid > owed) flow.chargedInGaps += paid - owed;
        if (gap != 0 && Epoch.unwrap(until) > gap) {
            flow.gapEpochs += Epoch.unwrap(until) - gap;
            flow.fundedSince = Epoch.unwrap(until);
        }
        item.locked = item.locked + toppedUp - paid;
        item.settledUntil = until;
        item.unfundedSince = Epoch.wrap(0);
        _take(item.developer, toppedUp);
        _give(item.payout, paid);
    }

    /// @dev What the attested epochs before `until` cost that are not settled yet, those in a gap apart.
    function _owedUntil(bytes32 dealId, uint256 until) private view returns (uint256 owed, uint256 epochs) {
        DealView storage item = _deals[dealId];
        uint256 gap = Epoch.unwrap(item.unfundedSince);
        if (gap != 0 && gap < until) until = gap;
        for (uint256 epoch = Epoch.unwrap(item.settledUntil); epoch < until; ++epoch) {
            if (!isAttested[item.agent][epoch]) continue;
            owed += Naive.priceAt(_prices[dealId], epoch);
            ++epochs;
        }
    }

    function _unfunded(bytes32 dealId, bytes calldata data) private {
        _deals[dealId].unfundedSince = abi.decode(data, (Epoch));
    }

    function _funded(bytes32 dealId, address from, bytes calldata data) private {
        (uint64 amount, Epoch paidUntil) = abi.decode(data, (uint64, Epoch));
        _take(from, amount);
        _flows[dealId].funded += amount;
        _deals[dealId].locked += amount;
        // While the deal is in a gap, that is where its money ends.
        _requirePaidUntil(dealId, paidUntil);
    }

    function _changed(bytes32 dealId, bytes calldata data) private {
        DealView storage item = _deals[dealId];
        ProviderOfferView storage supply = _supplies[OfferHash.unwrap(item.providerOffer)];
        supply.usedMilliCpu -= item.milliCpu;
        supply.usedMemoryMib -= item.memoryMib;
        uint64 bondBefore = item.bond;
        Change memory change = abi.decode(data, (Change));
        item.changes = change.sequence;
        item.priceFrom = change.from;
        item.oldPricePerEpoch = item.pricePerEpoch;
        item.pricePerEpoch = change.price;
        item.endEpoch = change.endEpoch;
        item.milliCpu = change.milliCpu;
        item.memoryMib = change.memoryMib;
        item.bond = change.bond;
        _prices[dealId].push(Naive.Price(Epoch.unwrap(change.from), change.price));
        supply.usedMilliCpu += item.milliCpu;
        supply.usedMemoryMib += item.memoryMib;
        _take(item.provider, item.bond > bondBefore ? item.bond - bondBefore : 0);
        _give(item.provider, item.bond < bondBefore ? bondBefore - item.bond : 0);
        _requirePaidUntil(dealId, change.paidUntil);
    }

    function _refunded(bytes32 dealId, bytes calldata data) private {
        (uint64 refunded, Epoch paidUntil) = abi.decode(data, (uint64, Epoch));
        _refund(dealId, refunded);
        _requirePaidUntil(dealId, paidUntil);
    }

    function _ending(bytes32 dealId, bytes calldata data) private {
        DealView storage item = _deals[dealId];
        uint64 refunded;
        (item.cause, item.endEpoch, refunded) = abi.decode(data, (EndCause, Epoch, uint64));
        item.state = DealState.Ending;
        _refund(dealId, refunded);
    }

    function _ended(bytes32 dealId, bytes calldata data) private {
        DealView storage item = _deals[dealId];
        (EndCause cause, uint64 refunded, address bondTo, uint64 bond) =
            abi.decode(data, (EndCause, uint64, address, uint64));
        require(bond == item.bond && refunded == item.locked, "not all of the deal's money went back");
        bool isForfeit = cause == EndCause.ProviderEvicted || cause == EndCause.ProviderSlashed;
        require(bondTo == (isForfeit ? item.developer : item.provider), "the bond went elsewhere");
        item.cause = cause;
        item.state = DealState.Ended;
        item.bond = 0;
        _refund(dealId, refunded);
        _give(bondTo, bond);
        _demands[OfferHash.unwrap(item.developerOffer)].liveReplicas -= 1;
        ProviderOfferView storage supply = _supplies[OfferHash.unwrap(item.providerOffer)];
        supply.usedMilliCpu -= item.milliCpu;
        supply.usedMemoryMib -= item.memoryMib;
    }

    function _refund(bytes32 dealId, uint64 refunded) private {
        _flows[dealId].refunded += refunded;
        _deals[dealId].locked -= refunded;
        _give(_deals[dealId].developer, refunded);
    }

    function _requirePaidUntil(bytes32 dealId, Epoch said) private view {
        require(Epoch.unwrap(said) == Epoch.unwrap(dealOf(dealId).paidUntil), "an event names another paidUntil");
    }

    // --- Balances ---------------------------------------------------------------------------------------------------

    function _give(address account, uint256 amount) private {
        if (amount == 0) return;
        _know(account);
        _accounts[account].free += amount;
    }

    /// @dev Reverts when the events say that somebody spent more than there was.
    function _take(address account, uint256 amount) private {
        _accounts[account].free -= amount;
    }

    function _know(address account) private {
        if (_isKnown[account]) return;
        _isKnown[account] = true;
        accounts.push(account);
    }

    function _address(bytes32 topic) private pure returns (address) {
        return address(uint160(uint256(topic)));
    }
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketEvents} from "../src/interfaces/IMarketEvents.sol";
import {OfferHashing} from "../src/libraries/OfferHashing.sol";
import {
    ArtifactUpdate,
    DealChange,
    DealId,
    DealRef,
    DealState,
    DeveloperOffer,
    EndCause,
    Epoch,
    Match,
    OfferHash,
    ProviderOffer,
    Reason
} from "../src/types/Types.sol";
import {Actions} from "./support/Actions.sol";
import {CallCountingWallet, RefusingWallet} from "./support/OddWallets.sol";

/// @dev What went wrong in markets before this one, each by its name.
contract KnownFailuresTest is Actions {
    Provider internal provider;
    DealId internal dealId;

    function setUp() public override {
        super.setUp();
        provider = fundedProvider(1);
        dealId = openDeal(provider);
        nextEpochs(1);
        watch(provider);
        accounts.push(developer);
        accounts.push(stranger);
        deals.push(dealId);
    }

    // --- Payments -----------------------------------------------------------------------------------------------------

    function test_ServedEpochsUnpaidAfterCancel() public {
        serve(provider.agent, 2);
        cancel(dealId);
        assertEq(free(provider.payout), 2 * PRICE, "paid by the cancel itself");
        // The current epoch ends after the cancel, is attested later still, and is paid.
        serve(provider.agent, 1);
        nextEpochs(2 * WINDOW);
        drain(developer);
        assertEq(claim(dealId), PRICE);
    }

    function test_ClosingUnpaidServedEpochs() public {
        serve(provider.agent, 3);
        cancel(dealId);
        serve(provider.agent, 1);
        nextEpochs(WINDOW);
        vm.prank(developer);
        market.closeDeal(refOf(dealId));
        assertEq(free(provider.payout), 4 * PRICE, "nobody had claimed before");
    }

    function test_CollectingToSomebodyElsesAddress() public {
        serve(provider.agent, 2);
        vm.prank(stranger);
        claim(dealId);
        assertEq(free(stranger), 0);
        assertEq(free(provider.payout), 2 * PRICE);
        // Naming another provider offer, with another payout account, is refused.
        ProviderOffer memory supply = supplyOf(provider);
        (supply.payout, supply.nonce) = (stranger, 1);
        vm.prank(provider.account);
        OfferHash other = market.postProviderOffer(supply);
        serve(provider.agent, 1);
        OfferHash[] memory demands = new OfferHash[](1);
        demands[0] = refOf(dealId).developerOffer;
        vm.expectEmit(address(market));
        emit IMarketEvents.ClaimSkipped(dealId, Reason.ProviderOfferMismatch);
        assertEq(market.claim(provider.account, other, demands), 0);
        assertEq(free(stranger), 0);
    }

    function test_OnePotReachableByASecondAgreement() public {
        Provider memory other = fundedProvider(2);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        DealId second = openDeal(demand, other);
        drain(developer);
        serve(other.agent, 2 * PREPAID);
        // The second deal uses its own lock up; that of the first stays, although both have one developer.
        assertEq(claim(second), PREPAID * PRICE);
        assertEq(claim(second), 0);
        assertEq(deal(dealId).locked, PREPAID * PRICE);
        assertEq(free(provider.account), START_FREE - BOND, "nor does it reach the other's bond");
    }

    function test_APauseThatStrandsPay() public {
        serve(provider.agent, 2);
        vm.prank(operator);
        market.setMatchingPaused(true);
        assertEq(claim(dealId), 2 * PRICE);
        uint256 amount = free(provider.payout);
        vm.prank(provider.payout);
        market.withdraw(amount, provider.payout);
        cancel(dealId);
        serve(provider.agent, 1);
        assertEq(claim(dealId), PRICE);
        market.closeDeal(refOf(dealId));
        drain(developer);
        drain(provider.account);
        assertEq(token.balanceOf(developer), START_FREE - 3 * PRICE);
        assertEq(token.balanceOf(provider.account), START_FREE);
    }

    function test_AnEqualityCheckBrokenByADonatedAtom() public {
        token.mint(address(market), 1);
        serve(provider.agent, 2);
        assertEq(claim(dealId), 2 * PRICE);
        fund(stranger, 5);
        assertEq(free(stranger), 5, "the atom is nobody's deposit");
        cancel(dealId);
        serve(provider.agent, 1);
        claim(dealId);
        market.closeDeal(refOf(dealId));
        drain(developer);
        drain(provider.account);
        drain(provider.payout);
        drain(stranger);
        assertEq(token.balanceOf(address(market)), 1, "all others have everything");
    }

    function test_DustThatResetsTimers() public {
        drain(developer);
        serve(provider.agent, PREPAID);
        claim(dealId);
        Epoch since = deal(dealId).unfundedSince;
        fund(stranger, GRACE);
        for (uint256 i = 1; i < GRACE; ++i) {
            nextEpochs(1);
            vm.prank(stranger);
            market.fundDeal(refOf(dealId), 1);
            assertEpoch(deal(dealId).unfundedSince, Epoch.unwrap(since), "the timer runs on");
        }
        nextEpochs(1);
        market.closeDeal(refOf(dealId));
        assertState(dealId, DealState.Ended, EndCause.Unfunded);
        assertConserved();
    }

    function test_CallbacksOnTheMoneyPath() public {
        CallCountingWallet wallet = new CallCountingWallet();
        ProviderOffer memory supply = supplyOf(provider);
        (supply.payout, supply.nonce) = (address(wallet), 1);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        submit(signedMatch(demand, provider, supply));
        DealId ofWallet = refTo(demand, supply);
        serve(provider.agent, 3);
        // Neither of the two is called: not the payee, not the token.
        vm.expectCall(address(wallet), "", 0);
        vm.expectCall(address(token), "", 0);
        assertEq(claim(ofWallet), 2 * PRICE);
        cancel(ofWallet);
        serve(provider.agent, 1);
        market.closeDeal(refOf(ofWallet));
        assertEq(free(address(wallet)), 3 * PRICE);
        assertEq(vm.load(address(wallet), 0), 0, "counted no call");
    }

    function test_APayeeThatRefusesStrandsNobody() public {
        ProviderOffer memory supply = supplyOf(provider);
        (supply.payout, supply.nonce) = (address(new RefusingWallet()), 1);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        submit(signedMatch(demand, provider, supply));
        DealId refusing = refTo(demand, supply);
        serve(provider.agent, 3);
        cancel(refusing);
        serve(provider.agent, 1);
        claim(refusing);
        market.closeDeal(refOf(refusing));
        assertEq(free(provider.account), START_FREE - BOND, "the bond is back");
    }

    // --- Signatures ---------------------------------------------------------------------------------------------------

    function test_ATypehashThatDiffersFromTheStruct() public {
        string[3] memory types = [
            "DealChange(bytes32 dealId,uint32 sequence,uint32 endEpoch,uint32 milliCpu,uint32 memoryMib,uint64 pricePerEpoch,uint64 validUntil)",
            "ArtifactUpdate(bytes32 developerOffer,uint32 version,bytes32 artifact,bytes32 manifest,uint64 validUntil,string artifactUrl)",
            "Receipt(bytes32 dealId,uint64 sequence,bytes32 content)"
        ];
        assertEq(OfferHashing.DEAL_CHANGE_TYPEHASH, vm.eip712HashType(types[0]));
        assertEq(OfferHashing.ARTIFACT_UPDATE_TYPEHASH, vm.eip712HashType(types[1]));
        assertEq(OfferHashing.RECEIPT_TYPEHASH, vm.eip712HashType(types[2]));
        // Forge hashes the encoded struct by the type's text: order and width of every field must agree.
        DealChange memory change = changeOf(dealId);
        assertTyped(types[0], abi.encode(change), market.hashDealChange(change));
        ArtifactUpdate memory update = updateOf(demandOf(1), 9);
        assertTyped(types[1], abi.encode(update), market.hashArtifactUpdate(update));
        assertTyped(types[2], abi.encode(dealId, 5, bytes32("x")), market.hashReceipt(receiptOf(dealId, 5, "x")));
    }

    function assertTyped(string memory typeName, bytes memory encoded, bytes32 hash) internal {
        bytes32 structHash = vm.eip712HashStruct(typeName, encoded);
        assertEq(hash, keccak256(abi.encodePacked(hex"1901", market.domainSeparator(), structHash)));
    }

    function test_ASignedOfferThatCannotBeRevoked() public {
        Provider memory other = fundedProvider(2);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 5;
        Match memory item = signedMatch(demand, other, supplyOf(other));
        OfferHash demandHash = market.hashDeveloperOffer(demand);
        OfferHash supplyHash = market.hashProviderOffer(supplyOf(other));
        uint256 before = vm.snapshotState();
        vm.prank(developer);
        market.cancelOffer(demandHash);
        expectMatchSkipped(item, Reason.DeveloperOfferCancelled);
        assertEq(submit(item), 0);
        vm.revertToState(before);
        vm.prank(developer);
        market.raiseNonceFloor(6);
        expectMatchSkipped(item, Reason.DeveloperNonceTooLow);
        assertEq(submit(item), 0);
        vm.revertToState(before);
        vm.prank(other.account);
        market.cancelOffer(supplyHash);
        expectFillSkipped(item, 0, Reason.ProviderOfferCancelled);
        assertEq(submit(item), 0);
    }

    function test_ReplayOfAnOldUpdate() public {
        ArtifactUpdate memory old = updateOf(demandOf(1), 1);
        bytes memory signature = signUpdate(developerKey, old);
        market.updateArtifact(old, signature);
        ArtifactUpdate memory next = updateOf(demandOf(1), 2);
        bytes memory nextSignature = signUpdate(developerKey, next);
        market.updateArtifact(next, nextSignature);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.SequenceWrong.selector, 3, 1));
        market.updateArtifact(old, signature);
        assertEq(market.developerOffer(next.developerOffer).artifact, next.artifact);
    }

    function test_TheOldPriceNotSettledBeforeAChange() public {
        serve(provider.agent, 3);
        reprice(provider, dealId, PRICE / 3);
        assertEq(free(provider.payout), 3 * PRICE, "settled by the change");
        uint256 before = vm.snapshotState();
        // What could not be settled yet keeps its price as well, in either direction.
        serve(provider.agent, 1);
        assertEq(claim(dealId), PRICE);
        vm.revertToState(before);
        nextEpochs(2);
        attest(provider.agent, 5);
        attest(provider.agent, 4);
        assertEq(claim(dealId), PRICE + PRICE / 3);
    }

    function test_AnIdSquattedFirst() public {
        // Whoever knows an offer before its owner has used it can neither post it, cancel it, nor take its id.
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        Provider memory other = fundedProvider(2);
        Match memory item = signedMatch(demand, other, supplyOf(other));
        OfferHash demandHash = market.hashDeveloperOffer(demand);
        OfferHash supplyHash = market.hashProviderOffer(supplyOf(other));
        vm.startPrank(stranger);
        vm.expectRevert(abi.encodeWithSelector(IMarketEvents.NotOfferOwner.selector, developer, stranger));
        market.postDeveloperOffer(demand);
        // These void offers of the stranger's own, of which there are none.
        market.cancelOffer(demandHash);
        market.cancelOffer(supplyHash);
        vm.stopPrank();
        assertEq(submit(item), 1);
        DealId opened = market.dealIdOf(demandHash, other.account);
        assertState(opened, DealState.Active, EndCause.None);
        assertEq(deal(opened).developer, developer);
    }

    function test_CodeAppearsOnASignerBetweenSigningAndMatching() public {
        Provider memory other = fundedProvider(2);
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        Match memory item = signedMatch(demand, other, supplyOf(other));
        RefusingWallet code = new RefusingWallet();
        delegate(developerKey, address(code));
        delegate(other.key, address(code));
        assertEq(submit(item), 1, "what the key has signed still holds");
    }

    function test_CodeAppearsOnASignerBetweenSigningAndChanging() public {
        DealChange memory change = changeOf(dealId);
        change.pricePerEpoch = PRICE + 1;
        bytes memory byDeveloper = signChange(developerKey, change);
        bytes memory byProvider = signChange(provider.key, change);
        RefusingWallet code = new RefusingWallet();
        delegate(developerKey, address(code));
        delegate(provider.key, address(code));
        market.changeDeal(refOf(dealId), change, supplyOf(provider), byDeveloper, byProvider);
        assertEq(deal(dealId).pricePerEpoch, PRICE + 1);
    }

    function test_AnAgentCannotHideItsReceiptsBehindCode() public {
        delegate(agentKeyNo(1), address(new RefusingWallet()));
        slashWith(agentKeyNo(1), dealId);
        assertState(dealId, DealState.Ended, EndCause.ProviderSlashed);
    }

    /// @dev EIP-7702: from here on the account runs `code`.
    function delegate(uint256 key, address code) internal {
        vm.attachDelegation(vm.signDelegation(code, key));
        address account = vm.addr(key);
        // The list is carried by the next transaction.
        vm.prank(stranger);
        (bool success,) = account.staticcall(abi.encodeCall(RefusingWallet.refuses, ()));
        assertTrue(success);
        assertEq(account.code.length, 23, "delegated");
    }

    // --- Batches ------------------------------------------------------------------------------------------------------

    function test_OneStaleEntryThatRevertsAWholeMatch() public {
        Provider[] memory providers = new Provider[](3);
        ProviderOffer[] memory supplies = new ProviderOffer[](3);
        for (uint256 i = 0; i < 3; ++i) {
            providers[i] = fundedProvider(2 + i);
            supplies[i] = supplyOf(providers[i]);
        }
        DeveloperOffer memory demand = demandOf(3);
        demand.nonce = 1;
        Match[] memory matches = new Match[](2);
        matches[1] = signedMatch(demand, providers, supplies);
        // The first match is stale as a whole, and of the second one a fill.
        matches[0] = signedMatch(demandOf(1), provider, supplyOf(provider));
        OfferHash stale = market.hashProviderOffer(supplies[1]);
        vm.prank(providers[1].account);
        market.cancelOffer(stale);
        assertEq(market.matchOffers(matches), 2);
    }

    function test_OneStaleEntryThatRevertsAWholeClaim() public {
        DeveloperOffer memory demand = demandOf(1);
        demand.nonce = 1;
        DealId ended = openDeal(demand, provider);
        cancel(ended);
        serve(provider.agent, 1);
        claim(ended);
        market.closeDeal(refOf(ended));
        DealId[] memory dealIds = new DealId[](3);
        (dealIds[0], dealIds[1], dealIds[2]) = (DealId.wrap("unknown"), ended, dealId);
        DealRef memory known = refOf(dealId);
        OfferHash[] memory demands = new OfferHash[](3);
        demands[1] = refOf(ended).developerOffer;
        demands[2] = known.developerOffer;
        assertEq(market.claim(provider.account, known.providerOffer, demands), PRICE);
    }
}

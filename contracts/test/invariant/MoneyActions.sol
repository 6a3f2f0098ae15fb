// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {Market} from "../../src/Market.sol";
import {IMarketCore} from "../../src/interfaces/IMarketCore.sol";
import {IMarketExtension} from "../../src/interfaces/IMarketExtension.sol";
import {DealRef, DealState, DealView, Epoch} from "../../src/types/Types.sol";
import {Actions} from "./Actions.sol";

/// @dev Money in, out and past the market.
abstract contract MoneyActions is Actions {
    bytes32 private constant PERMIT_TYPEHASH =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");

    uint256 private _authorizations;

    function deposit(uint256 who, uint256 amount) external action("deposit") {
        amount = _bound(amount, 1, 100e6);
        address account = who % 2 == 0 ? developerNo(who / 2) : anyAccount(who / 2);
        _mintApproved(account, amount);
        VM.prank(account);
        MARKET.deposit(amount);
        ++done["deposit"];
    }

    function depositFor(uint256 who, uint256 from, uint256 amount) external action("depositFor") {
        amount = _bound(amount, 1, 50e6);
        address payer = anyAccount(from);
        _mintApproved(payer, amount);
        VM.prank(payer);
        MARKET.depositFor(anyAccount(who), amount);
        ++done["depositFor"];
    }

    /// @dev Relayed by a stranger; now and then somebody was quicker and has used the permit already.
    function depositWithPermit(uint256 who, uint256 amount) external action("depositWithPermit") {
        address owner = anyAccount(who);
        bool isFrontRun = amount % 4 == 0;
        amount = _bound(amount, 1, 50e6);
        TOKEN.mint(owner, amount);
        (uint8 v, bytes32 r, bytes32 s) = _signPermit(owner, amount);
        if (isFrontRun) TOKEN.permit(owner, address(MARKET), amount, type(uint256).max, v, r, s);
        VM.prank(STRANGER);
        MARKET.depositWithPermit(owner, amount, type(uint256).max, v, r, s);
        ++done["depositWithPermit"];
    }

    function depositWithAuthorization(uint256 who, uint256 amount) external action("depositWithAuthorization") {
        address owner = anyAccount(who);
        amount = _bound(amount, 1, 50e6);
        TOKEN.mint(owner, amount);
        bytes32 nonce = bytes32(++_authorizations);
        bytes32 structHash = keccak256(
            abi.encode(
                TOKEN.RECEIVE_WITH_AUTHORIZATION_TYPEHASH(),
                owner,
                address(MARKET),
                amount,
                uint256(0),
                type(uint256).max,
                nonce
            )
        );
        (uint8 v, bytes32 r, bytes32 s) = _vrs(owner, _tokenDigest(structHash));
        VM.prank(STRANGER);
        MARKET.depositWithAuthorization(owner, amount, 0, type(uint256).max, nonce, v, r, s);
        ++done["depositWithAuthorization"];
    }

    function withdraw(uint256 who, uint256 amount) external action("withdraw") {
        address account = anyAccount(who);
        uint256 free = MARKET.freeBalance(account);
        if (free == 0) return;
        // Now and then all of it, so that deals run dry.
        amount = amount % 5 == 0 ? free : _bound(amount, 1, free / 4 + 1);
        VM.prank(account);
        MARKET.withdraw(amount, anyAccount(amount));
        ++done["withdraw"];
    }

    /// @dev So that deals run dry.
    function drainDeveloper(uint256 which) external action("drainDeveloper") {
        (, DealView memory shown) = _pickOpen(which);
        uint256 free = MARKET.freeBalance(shown.developer);
        if (free == 0) return;
        VM.prank(shown.developer);
        MARKET.withdraw(free, shown.developer);
        ++done["drainDeveloper"];
    }

    function donate(uint256 amount) external action("donate") {
        amount = _bound(amount, 1, 1e6);
        TOKEN.mint(address(MARKET), amount);
        donated += amount;
        ++done["donate"];
    }

    function fundDeal(uint256 which, uint256 who, uint256 amount) external action("fundDeal") {
        (DealRef memory ref, DealView memory shown) = _pickOpen(which);
        if (shown.state == DealState.None) return;
        // Settling comes first and may take from the same account.
        _settle(ref);
        address account = anyAccount(who);
        uint256 free = MARKET.freeBalance(account);
        if (free == 0) return;
        shown = MARKET.deal(ref);
        uint256 most = 3 * uint256(shown.pricePerEpoch) + 1;
        amount = _bound(amount, 1, free < most ? free : most);
        VM.prank(account);
        MARKET.fundDeal(ref, uint64(amount));
        ++done["fundDeal"];
        if (Epoch.unwrap(shown.unfundedSince) != 0) ++done["fundUnfundedDeal"];
    }

    /// @dev A payout account claims and withdraws in one call.
    function multicallClaimAndWithdraw(uint256 which) external action("multicallClaimAndWithdraw") {
        (DealRef memory ref, DealView memory shown) = _pickOpen(which);
        if (shown.state == DealState.None) return;
        _settle(ref);
        uint256 free = MARKET.freeBalance(shown.payout);
        if (free == 0) return;
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(IMarketCore.claim, (ref.provider, ref.providerOffer, _onlyDemand(ref)));
        calls[1] = abi.encodeCall(IMarketCore.withdraw, (free / 2 + 1, shown.payout));
        VM.prank(shown.payout);
        Market(address(MARKET)).multicall(calls);
        ++done["multicallClaimAndWithdraw"];
    }

    /// @dev One call that runs the code of both contracts.
    function multicallClaimAndLeave(uint256 which, uint256 seed) external action("multicallClaimAndLeave") {
        (DealRef memory ref, DealView memory shown) = _pickOpen(which);
        if (shown.state == DealState.None || seed % 3 != 0) return;
        bytes[] memory calls = new bytes[](2);
        calls[0] = abi.encodeCall(IMarketCore.claim, (ref.provider, ref.providerOffer, _onlyDemand(ref)));
        calls[1] = abi.encodeCall(IMarketExtension.giveNotice, (_only(ref)));
        VM.prank(shown.provider);
        Market(address(MARKET)).multicall(calls);
        ++done["multicallClaimAndLeave"];
    }

    function _mintApproved(address account, uint256 amount) private {
        TOKEN.mint(account, amount);
        VM.prank(account);
        TOKEN.approve(address(MARKET), amount);
    }

    function _signPermit(address owner, uint256 amount) private view returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 structHash = keccak256(
            abi.encode(PERMIT_TYPEHASH, owner, address(MARKET), amount, TOKEN.nonces(owner), type(uint256).max)
        );
        return _vrs(owner, _tokenDigest(structHash));
    }

    function _tokenDigest(bytes32 structHash) private view returns (bytes32) {
        return keccak256(abi.encodePacked(hex"1901", TOKEN.DOMAIN_SEPARATOR(), structHash));
    }
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IERC3009} from "openzeppelin/interfaces/draft-IERC3009.sol";
import {IERC20} from "openzeppelin/token/ERC20/IERC20.sol";
import {IERC20Permit} from "openzeppelin/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "openzeppelin/token/ERC20/utils/SafeERC20.sol";
import {IMarket} from "../interfaces/IMarket.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Escrow
/// @notice One ledger of free balances. What is locked in deals or bonded has left it.
abstract contract Escrow is MarketBase {
    using SafeERC20 for IERC20;

    /// @dev One word, so that a match reads a signer's balance and nonce floor at once. Credits from deals may lift
    /// `free` above the limit for deposits; 128 bits hold more than all of them together.
    struct Account {
        uint128 free;
        uint64 nonceFloor;
    }

    uint256 private constant BALANCE_LIMIT = 1 << 63;

    mapping(address owner => Account) internal _accounts;

    /// @inheritdoc IMarket
    function deposit(uint256 amount) external nonReentrant {
        _pull(msg.sender, msg.sender, amount);
    }

    /// @inheritdoc IMarket
    function depositFor(address account, uint256 amount) external nonReentrant {
        if (account == address(0)) revert ZeroAddress();
        _pull(account, msg.sender, amount);
    }

    /// @inheritdoc IMarket
    function depositWithPermit(address owner, uint256 amount, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
        external
        nonReentrant
    {
        try IERC20Permit(TOKEN).permit(owner, address(this), amount, deadline, v, r, s) {}
        catch {
            // Somebody may have taken the permit from the mempool and used it before: then its allowance stands here
            // to the atom. Any other allowance was given for something else and is not a relayer's to use.
            uint256 allowed = IERC20(TOKEN).allowance(owner, address(this));
            if (allowed != amount && msg.sender != owner) revert TokenTransferFailed();
        }
        _pull(owner, owner, amount);
    }

    /// @inheritdoc IMarket
    function depositWithAuthorization(
        address from,
        uint256 amount,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external nonReentrant {
        uint256 before = IERC20(TOKEN).balanceOf(address(this));
        IERC3009(TOKEN).receiveWithAuthorization(from, address(this), amount, validAfter, validBefore, nonce, v, r, s);
        _creditArrived(from, from, before);
    }

    /// @inheritdoc IMarket
    function withdraw(uint256 amount, address to) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        if (to == address(0)) revert ZeroAddress();
        // The market's own tokens would belong to nobody.
        if (to == address(this)) revert InvalidRecipient(to);
        _debit(msg.sender, amount);
        emit Withdrawn(msg.sender, to, amount);
        if (!IERC20(TOKEN).trySafeTransfer(to, amount)) revert TokenTransferFailed();
    }

    /// @inheritdoc IMarket
    function freeBalance(address account) external view returns (uint256) {
        return _accounts[account].free;
    }

    function _credit(address account, uint256 amount) internal {
        _accounts[account].free += uint128(amount);
    }

    function _debit(address account, uint256 amount) internal {
        uint256 free = _accounts[account].free;
        if (free < amount) revert BalanceTooLow(free, amount);
        _accounts[account].free = uint128(free - amount);
    }

    function _pull(address account, address from, uint256 amount) private {
        if (amount == 0) revert ZeroAmount();
        uint256 before = IERC20(TOKEN).balanceOf(address(this));
        if (!IERC20(TOKEN).trySafeTransferFrom(from, address(this), amount)) revert TokenTransferFailed();
        _creditArrived(account, from, before);
    }

    /// @dev Credits the difference and not the amount: tokens may take a fee on the way.
    function _creditArrived(address account, address from, uint256 before) private {
        uint256 arrived = IERC20(TOKEN).balanceOf(address(this)) - before;
        if (arrived == 0) revert ZeroAmount();
        uint256 free = _accounts[account].free + arrived;
        if (free >= BALANCE_LIMIT) revert BalanceTooLarge(free);
        _accounts[account].free = uint128(free);
        emit Deposited(account, from, arrived);
    }
}

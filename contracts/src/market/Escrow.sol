// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IERC3009} from "openzeppelin/interfaces/draft-IERC3009.sol";
import {IERC20} from "openzeppelin/token/ERC20/IERC20.sol";
import {IERC20Permit} from "openzeppelin/token/ERC20/extensions/IERC20Permit.sol";
import {SafeERC20} from "openzeppelin/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "openzeppelin/utils/ReentrancyGuardTransient.sol";
import {IMarketCore} from "../interfaces/IMarketCore.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Escrow
/// @notice One ledger of free balances. What is locked in deals or bonded has left it.
/// @dev Only what calls the token is guarded against reentrancy. Nothing else calls out, but for the static calls that
/// ask contracts about their signatures.
abstract contract Escrow is IMarketCore, MarketBase, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    uint256 private constant BALANCE_LIMIT = 1 << 63;

    /// @inheritdoc IMarketCore
    function deposit(uint256 amount) external nonReentrant {
        _pull(msg.sender, msg.sender, amount);
    }

    /// @inheritdoc IMarketCore
    function depositFor(address account, uint256 amount) external nonReentrant {
        if (account == address(0)) revert ZeroAddress();
        _pull(account, msg.sender, amount);
    }

    /// @inheritdoc IMarketCore
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

    /// @inheritdoc IMarketCore
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

    /// @inheritdoc IMarketCore
    function withdraw(uint256 amount, address to) external nonReentrant {
        if (amount == 0) revert ZeroAmount();
        if (to == address(0)) revert ZeroAddress();
        // The market's own tokens would belong to nobody.
        if (to == address(this)) revert InvalidRecipient(to);
        _debit(msg.sender, amount);
        emit Withdrawn(msg.sender, to, amount);
        if (!IERC20(TOKEN).trySafeTransfer(to, amount)) revert TokenTransferFailed();
    }

    /// @inheritdoc IMarketCore
    function freeBalance(address account) external view returns (uint256) {
        return _freeOf(account);
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
        uint256 free = _freeOf(account) + arrived;
        if (free >= BALANCE_LIMIT) revert BalanceTooLarge(free);
        _credit(account, arrived);
        emit Deposited(account, from, arrived);
    }
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {OpenToken} from "./Tokens.sol";

/// @dev Makes one call to a target in the middle of every transfer, and remembers how it went.
contract EagerToken is OpenToken {
    address public target;
    bytes public data;
    bool public succeeded;
    bytes public answer;
    uint256 public calls;
    bool private _isCalling;

    function arm(address target_, bytes calldata data_) external {
        target = target_;
        data = data_;
    }

    /// @dev So that the token can be a party of the market as well.
    function execute(address to, bytes calldata what) external returns (bytes memory) {
        (bool success, bytes memory said) = to.call(what);
        require(success, "execute failed");
        return said;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        _callBack();
        super.transfer(to, amount);
        return true;
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        _callBack();
        super.transferFrom(from, to, amount);
        return true;
    }

    function _callBack() private {
        if (target == address(0) || _isCalling) return;
        _isCalling = true;
        (succeeded, answer) = target.call(data);
        ++calls;
        _isCalling = false;
    }
}

/// @dev Lets listed accounts neither send nor receive.
contract BlockingToken is OpenToken {
    error Blocked(address account);

    mapping(address account => bool) public isBlocked;

    function setBlocked(address account, bool blocked) external {
        isBlocked[account] = blocked;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        _requireFree(msg.sender, to);
        return super.transfer(to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        _requireFree(from, to);
        return super.transferFrom(from, to, amount);
    }

    function _requireFree(address from, address to) private view {
        if (isBlocked[from]) revert Blocked(from);
        if (isBlocked[to]) revert Blocked(to);
    }
}

/// @dev Can be stopped as a whole.
contract PausableToken is OpenToken {
    error Paused();

    bool public paused;

    function setPaused(bool paused_) external {
        paused = paused_;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        if (paused) revert Paused();
        return super.transfer(to, amount);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        if (paused) revert Paused();
        return super.transferFrom(from, to, amount);
    }
}

/// @dev Keeps a share of what is transferred, either way, from what the receiver gets.
contract TaxToken is OpenToken {
    uint256 public immutable PERCENT;

    constructor(uint256 percent) {
        PERCENT = percent;
    }

    function transfer(address to, uint256 amount) public override returns (bool) {
        uint256 tax = amount * PERCENT / 100;
        _burn(msg.sender, tax);
        return super.transfer(to, amount - tax);
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        uint256 tax = amount * PERCENT / 100;
        _burn(from, tax);
        return super.transferFrom(from, to, amount - tax);
    }
}

/// @dev Says yes and does nothing.
contract LyingToken is OpenToken {
    bool public lies;

    function setLies(bool lies_) external {
        lies = lies_;
    }

    function transferFrom(address from, address to, uint256 amount) public override returns (bool) {
        return lies || super.transferFrom(from, to, amount);
    }
}

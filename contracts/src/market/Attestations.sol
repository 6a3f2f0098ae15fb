// SPDX-License-Identifier: MIT
pragma solidity ^0.8.30;

import {IMarketCore} from "../interfaces/IMarketCore.sol";
import {EpochBitmap} from "../libraries/EpochBitmap.sol";
import {Epoch} from "../types/Types.sol";
import {MarketBase} from "./MarketBase.sol";

/// @title Attestations
/// @notice Which epochs an agent says that it served, for all its deals at once.
abstract contract Attestations is IMarketCore, MarketBase {
    using EpochBitmap for EpochBitmap.Bitmap;

    /// @inheritdoc IMarketCore
    function attest(Epoch epoch, bytes32 receiptRoot) external {
        uint256 current = _currentEpoch();
        uint256 attested = Epoch.unwrap(epoch);
        if (attested >= current || attested < _closedBefore(current)) {
            revert EpochNotAttestable(epoch, Epoch.wrap(uint32(current)));
        }
        if (_attested[msg.sender].set(attested, current)) revert AlreadyAttested(epoch);
        bytes32 rolled = keccak256(abi.encode(_rollingHashes[msg.sender], epoch, receiptRoot));
        _rollingHashes[msg.sender] = rolled;
        emit Attested(msg.sender, epoch, receiptRoot, rolled);
    }
}

<?php

namespace App\Http\Controllers;

use App\Jobs\TellJob;
use Illuminate\Database\Schema\Blueprint;
use Illuminate\Http\Request;
use Illuminate\Routing\Controller;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Schema;

class PageController extends Controller
{
    private int $calls = 0;

    public function __construct(private Request $request)
    {
    }

    public function fresh()
    {
        return ++$this->calls . ' ' . $this->request->query('n') . ' ' . request('n');
    }

    public function push(int $fd)
    {
        return ['pushed' => app('swoole')->push($fd, 'from a page')];
    }

    public function tell(int $user)
    {
        return ['pushed' => app('swoole')->pushUid($user, 'from a page')];
    }

    public function tellLater(int $user)
    {
        touch(config('database.connections.sqlite.database'));
        Schema::hasTable('jobs') || Schema::create('jobs', function (Blueprint $table) {
            $table->bigIncrements('id');
            $table->string('queue')->index();
            $table->longText('payload');
            $table->unsignedTinyInteger('attempts');
            $table->unsignedInteger('reserved_at')->nullable();
            $table->unsignedInteger('available_at');
            $table->unsignedInteger('created_at');
        });
        TellJob::dispatch($user, 'from a queue');
        return ['queued' => DB::table('jobs')->count()];
    }

    public function broadcast()
    {
        return ['broadcast' => app('swoole')->broadcast('to everybody')];
    }
}
